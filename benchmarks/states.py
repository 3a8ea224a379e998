"""`python -m benchmarks.states`: how still delivery states hold, and how soon they show a fall.

Both figures are of 10 impressions a second that come by chance, over many seeds. The first flight delivers
0.9 of what is due, the threshold of `under`: its changes of state are counted by hour, from the second on.
The second flight has an indicator of 1.00 when its rate falls by 30 %: the time until `at_risk` is counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from flows.delivery.pacing import Counted, State, Thresholds, pace
from flows.delivery.steady_states import Memory, steady
from flows.model.flight import HOUR_MS, MINUTE_MS
from flows.model.plan import Plan

START_MS: Final = 1_700_006_400_000
A_MINUTE: Final = 600
HOURS: Final = 24
AT_MOST: Final = 30
"""Minutes behind a fall that are looked at."""
FALLS_TO: Final = 0.7
USUAL: Final = Thresholds()


class Held(NamedTuple):
    """Changes of state of one seed by hour: with the bands and the hold, and by the thresholds alone."""

    steady: Sequence[int]
    bare: Sequence[int]


def states(
    plan: Plan, counts: Sequence[int], before: int, begin: int, thresholds: Thresholds
) -> Iterator[tuple[State, State]]:
    """The state at each border of minutes, and that by the thresholds alone.

    Args:
        counts: impressions of the flight's minutes from `begin` - 60 on.
        before: impressions delivered by `begin`.
        begin: the first border, in minutes of the flight.
    """
    memory: Memory | None = None
    delivered, hour = before, sum(counts[1:60])
    for at, came in enumerate(counts[60:]):
        now_ms = plan.start_ms + (begin + at) * MINUTE_MS
        counted = Counted(plan.start_ms, delivered)
        held: State = "on_track" if memory is None else memory.state
        known = plan, delivered, hour, now_ms, thresholds, counted
        five = sum(counts[at + 56 : at + 60])  # the present minute, which is the fifth, has nothing yet
        memory = steady(pace(*known, held, five), memory, now_ms, thresholds.hold_ms)
        yield memory.state, pace(*known, None, five).state
        delivered += came
        hour += came - counts[at + 1]


def at_the_threshold(seed: int, hours: int = HOURS, thresholds: Thresholds = USUAL) -> Held:
    """Changes an hour of a flight that delivers 0.9 of what is due."""
    random = np.random.default_rng(seed)
    minutes = hours * 60
    booked = round(A_MINUTE * minutes / thresholds.under)
    plan = Plan("p", booked, START_MS, START_MS + minutes * MINUTE_MS)
    counts = [0] * 60 + random.poisson(A_MINUTE, minutes - 1).tolist()
    found = list(states(plan, counts, 0, 0, thresholds))
    changes = [[0] * hours, [0] * hours]
    for at in range(60, len(found)):
        for place in (0, 1):
            changes[place][at // 60] += found[at][place] != found[at - 1][place]
    return Held(changes[0][1:], changes[1][1:])


def until_at_risk(seed: int, thresholds: Thresholds = USUAL) -> int | None:
    """Minutes from a fall until the state is `at_risk`; None if it is not within `AT_MOST`."""
    random = np.random.default_rng(seed)
    minutes = HOURS * 60
    plan = Plan("p", A_MINUTE * minutes, START_MS, START_MS + HOURS * HOUR_MS)
    before = random.poisson(A_MINUTE, 60 + 60).tolist()  # an hour of it goes to settle the state
    after = random.poisson(FALLS_TO * A_MINUTE, AT_MOST + 1).tolist()
    begin, fall = minutes // 2 - 60, 60
    delivered = A_MINUTE * (minutes // 2) - sum(before[60:])
    for at, (state, _) in enumerate(states(plan, [*before, *after], delivered, begin, thresholds)):
        if at > fall and state == "at_risk":
            return at - fall
    return None


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.states", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000)
    seeds = range(parser.parse_args().seeds)
    held = [at_the_threshold(seed) for seed in seeds]
    for name, of in (("held", [one.steady for one in held]), ("bare", [one.bare for one in held])):
        flat = np.array(of)
        print(
            f"at the threshold, {name}: {flat.mean():.3f} changes an hour on average, at most {flat.max()} "
            f"in one, {100 * (flat > 3).mean():.3f} % of hours over three, of {flat.size:,} hours"
        )
    fell = [until_at_risk(seed) for seed in seeds]
    seen = np.array([AT_MOST + 1 if one is None else one for one in fell])
    print(
        f"a fall by 30 %: at_risk after {seen.mean():.1f} min on average, {np.median(seen):.0f} at the "
        f"median, {seen.max()} at most; {100 * (seen <= 10).mean():.1f} % within 10 min, "
        f"of {seen.size:,} seeds"
    )


if __name__ == "__main__":
    main()
