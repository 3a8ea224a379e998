"""`python -m fuzz`: hostile input at each door, until so many were tried; Ctrl-C ends it with what was done.

--inputs N   at each door; 1,000,000 by default, the form of a night
--door NAME  at this door alone; may be given several times
--seed N     of the inputs; a run with the same seed makes the same ones
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from fuzz.doors import DOORS
from fuzz.run import Harm, fuzz

_EVERY_S = 30.0


def main() -> int:
    asked = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    asked.add_argument("--inputs", type=int, default=1_000_000)
    asked.add_argument("--door", action="append", choices=sorted(DOORS))
    asked.add_argument("--seed", type=int, default=1)
    told = asked.parse_args()
    harmed = False
    try:
        for name in told.door or DOORS:
            harmed |= _one(name, told.seed, told.inputs)
    except KeyboardInterrupt:
        return 130
    return int(harmed)


def _one(name: str, seed: int, inputs: int) -> bool:
    """Try one door, and print how many inputs had which outcome; True if one did harm."""
    found, began_s = Counter[str](), time.monotonic()
    told_s, tried, harm = began_s, 0, None
    try:
        for outcomes in fuzz(name, DOORS[name], seed, inputs):
            found += outcomes
            tried += outcomes.total()
            if time.monotonic() - told_s > _EVERY_S:
                told_s = time.monotonic()
                print(f"{name}: {tried:,} so far", file=sys.stderr, flush=True)
    except Harm as error:
        harm = error
    finally:
        seconds = time.monotonic() - began_s
        words = ", ".join(f"{what} {count:,}" for what, count in sorted(found.items()))
        print(f"{name}: {found.total():,} inputs in {seconds:,.0f} s, seed {seed}: {words}", flush=True)
    if harm is not None:
        print(f"HARM {harm}", flush=True)
    return harm is not None


if __name__ == "__main__":
    sys.exit(main())
