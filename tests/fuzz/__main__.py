"""`python -m fuzz`: a number of hostile inputs at each door. A signal ends the run with the figures so far.

--inputs N      at each door; 1,000,000 by default, the form of a night
--door NAME     at this door alone; may be given several times
--seed N        of the inputs; a run with the same seed makes the same ones
--figures FILE  adds up over runs, and goes on where the last one ended
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from fuzz.doors import DOORS
from fuzz.figures import add_up, tried
from fuzz.run import AT_ONCE, Harm, fuzz

_EVERY_S = 30.0


def main() -> int:
    asked = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    asked.add_argument("--inputs", type=int, default=1_000_000)
    asked.add_argument("--door", action="append", choices=sorted(DOORS))
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--figures", type=Path)
    told = asked.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    harmed = False
    try:
        for name in told.door or DOORS:
            harmed |= _try_door(name, told.seed, told.inputs, told.figures)
    except KeyboardInterrupt:
        return 130
    return int(harmed)


def _try_door(name: str, seed: int, inputs: int, figures: Path | None) -> bool:
    """Try one door, and print how many inputs had which outcome; True if one did harm."""
    found, began_s = Counter[str](), time.monotonic()
    told_s, harm, so_far = began_s, None, tried(figures, name)
    first = so_far // AT_ONCE
    try:
        for outcomes in fuzz(name, DOORS[name], seed, inputs, first):
            found += outcomes
            so_far += outcomes.total()
            if time.monotonic() - told_s > _EVERY_S:
                told_s = time.monotonic()
                print(f"{name}: {so_far:,} so far", file=sys.stderr, flush=True)
    except Harm as error:
        harm = error
    finally:
        seconds = time.monotonic() - began_s
        words = ", ".join(f"{what} {count:,}" for what, count in sorted(found.items()))
        if figures is not None:
            add_up(figures, name, found, seconds)
        print(f"{name}: {found.total():,} inputs in {seconds:,.0f} s, seed {seed}: {words}", flush=True)
    if harm is not None:
        print(f"HARM {harm}", flush=True)
    return harm is not None


if __name__ == "__main__":
    sys.exit(main())
