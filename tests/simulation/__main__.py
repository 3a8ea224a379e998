"""`python -m simulation`: plays the histories of seeds, and tells the story of each that fails.

--seeds N       so many, from the first one on
--first N       the first one; by default where the figures' file ends
--seed N        one, with its whole story
--mutation NAME with a bug put in: how many seeds until it is found
--hunt FILE     hunts every bug in so many seeds behind the one that found it before; writes which found which
--figures FILE  adds up over runs
--switches N    so many seeds of two flows that change places; with --hunt its own bugs
--coverage      which lines of the cores they run, uncompiled
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

from simulation import bugs_of_switches, switches
from simulation.figures import COUNTED, Sum, first_seed
from simulation.history import History, histories
from simulation.lines import measure
from simulation.mutations import mutated, mutations
from simulation.play import Result, play, simulated
from simulation.shrink import shrunk

Some = tuple[dict[str, int], list[str]]
Played = Callable[[Iterable[int]], Some]
AT_ONCE = 10
IN_LINE = 4
"""Pieces that each process may be ahead of the oldest one: to make a failure short takes a while."""
STOPS = (signal.SIGINT, signal.SIGTERM)


def judged(history: History, mutation: str = "") -> Result:
    """Play a history, perhaps with a bug put in; its end has to be that of the same log undisturbed."""
    if mutation:
        with mutated(mutation):
            found = play(history)
    else:
        found = play(history)
    if found.wrong or not found.comparable:
        return found
    alone = undisturbed(history)
    if alone.wrong:
        found.wrong = f"undisturbed: {alone.wrong}"
    elif found.end != alone.end:
        keys = sorted({*found.end, *alone.end})
        unlike = [key for key in keys if found.end.get(key) != alone.end.get(key)]
        told = [f"{key}: {found.end.get(key)}, undisturbed {alone.end.get(key)}" for key in unlike[:3]]
        found.wrong = f"{len(unlike)} numbers are not those of an undisturbed run: {'; '.join(told)}"
    return found


_undisturbed: list[Result] = []
"""The latest undisturbed run: the two histories of a seed with seams have the same one."""


def undisturbed(history: History) -> Result:
    """Play a history with nothing going wrong, unless the latest such run was of the same log."""
    alone = history.undisturbed()
    if not _undisturbed or _undisturbed[0].history != alone:
        _undisturbed[:] = [play(alone)]
    return _undisturbed[0]


def story(found: Result) -> str:
    """A history that failed, as text."""
    history = found.history
    lines = [f"seed {history.seed}: {found.wrong}", ""]
    messages = sorted(
        (entry.at_ms, f"{name} {place}: {entry.value.decode(errors='replace')}")
        for name, some in history.entries.items()
        for place, entry in enumerate(some)
    )
    lines += ["The log (seconds since the beginning):"]
    lines += [f"{at_ms / 1000:10.1f}  {text}" for at_ms, text in messages]
    told: dict[str, Any] = {"seams": [*map(str, history.seams)]} if history.seams else {}
    told |= {"workers": history.workers, "flush intervals": history.intervals_ms}
    told |= {
        "save interval": history.saves_ms,
        "pace": history.pace_ms,
        "allowed lateness": history.lateness_ms,
        "faults": [*map(str, history.faults)],
    }
    lines += ["", *(f"{name}: {value}" for name, value in told.items()), "", "What happened:"]
    lines += [f"{at_ms / 1000:10.1f}  {text}" for at_ms, text in found.story]
    return "\n".join([*lines, "", f"Wrong: {found.wrong}"])


def some_seeds(seeds: Iterable[int]) -> tuple[dict[str, int], list[str]]:
    """Play seeds; returns figures, and the story of the first that failed, made short."""
    figures = dict.fromkeys(COUNTED, 0)
    stories: list[str] = []
    with simulated():
        for seed in seeds:
            figures["seeds"] += 1
            wrong = False
            for history in histories(seed):
                found = judged(history)
                for name in COUNTED[2:]:
                    figures[name] += getattr(found, name)
                if found.wrong:
                    wrong = True
                    stories.append(
                        story(shrunk(found.history, judged)) if not stories else f"seed {seed}: {found.wrong}"
                    )
            figures["failures"] += wrong
    return figures, stories


def hunt_all(file: Path, seeds: range, processes: int) -> None:
    """Write a seed that finds each bug, and what it says, as it is found; a bug that none finds is left out.
    The one that found it before is tried first.
    """
    names = sorted(mutations())
    before = json.loads(file.read_text()) if file.exists() else {}
    tried = [[*([before[name]["seed"]] if name in before else []), *seeds] for name in names]
    with ProcessPoolExecutor(processes) as pool:
        found = {}
        for name, told in zip(names, pool.map(_hunted, names, tried), strict=True):
            if told is not None:
                found[name] = told
                file.write_text(json.dumps(found, indent=1) + "\n")
    print(
        f"{len(found)} of {len(names)} bugs are found by one of the seeds {seeds.start} to {seeds.stop - 1}"
    )


def _hunted(name: str, seeds: Iterable[int]) -> dict[str, Any] | None:
    found = hunt(name, seeds)
    return None if found is None else {"seed": found.history.seed, "said": found.wrong}


def hunt(name: str, seeds: Iterable[int]) -> Result | None:
    """The first seed that finds a bug that is put in."""
    with simulated():
        for history in chain.from_iterable(map(histories, seeds)):
            found = judged(history, name)
            assert "<locals>" not in found.wrong, f"the bug is not put in: {found.wrong}"
            if found.wrong:
                return found
    return None


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="simulation", description="Play seeded histories of the whole flow."
    )
    parser.add_argument("--seeds", type=int, default=1000, metavar="N")
    parser.add_argument("--first", type=int, default=None, metavar="N")
    parser.add_argument("--seed", type=int, default=None, metavar="N")
    parser.add_argument("--mutation", choices=sorted(mutations()), default=None, metavar="NAME")
    parser.add_argument("--hunt", type=Path, default=None, metavar="FILE")
    parser.add_argument("--figures", type=Path, default=None, metavar="FILE")
    parser.add_argument("--switches", type=int, default=None, metavar="N")
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), metavar="N")
    args = parser.parse_args()
    if args.coverage:
        return measure(args.seeds, args.first or 0, args.processes)
    if args.switches is not None:
        seeds = range(args.first or 0, (args.first or 0) + args.switches)
        if args.hunt is not None:
            return hunt_switches(args.hunt, seeds)
        return play_switches(seeds, args.processes)
    if args.seed is not None:
        wrong = False
        with simulated():
            for history in histories(args.seed):
                found = judged(history)
                print(story(shrunk(found.history, judged) if found.wrong else found))
                wrong |= bool(found.wrong)
        return int(wrong)
    if args.mutation is not None:
        first = args.first or 0
        hit = hunt(args.mutation, range(first, first + args.seeds))
        print(f"{args.mutation}:", "not found" if hit is None else f"seed {hit.history.seed}: {hit.wrong}")
        return int(hit is None)
    if args.hunt is not None:
        first = args.first or 0
        hunt_all(args.hunt, range(first, first + args.seeds), args.processes)
        return 0
    first = first_seed(args.figures) if args.first is None else args.first
    begun_s, run = time.monotonic(), Sum(args.figures, first)
    for some, stories in played(range(first, first + args.seeds), args.processes):
        run.add(some)
        for one in stories:
            print(one, end="\n\n", flush=True)
    run.save()
    print(_told(run.figures), f"in {time.monotonic() - begun_s:.0f} s")
    if args.figures is not None:
        print("since the beginning:", _told(run.total))
    return int(run.figures["failures"] > 0 or run.figures["seeds"] < args.seeds)


def play_switches(seeds: range, processes: int) -> int:
    """Play seeds of switches, and print what fails."""
    begun_s, figures = time.monotonic(), Counter[str]()
    for some, stories in played(seeds, processes, switches.some_seeds):
        figures.update(some)
        for one in stories:
            print(one, end="\n\n", flush=True)
    said = ", ".join(f"{figures[name]:,} {name}" for name in switches.FIGURES)
    print(said, f"in {time.monotonic() - begun_s:.0f} s")
    return int(figures["failures"] > 0 or figures["seeds"] < len(seeds))


def hunt_switches(file: Path, seeds: range) -> int:
    """Write the first seed of switches that finds each bug of them, and what it says."""
    found: dict[str, Any] = {}
    with simulated():
        for name in sorted(bugs_of_switches.BUGS):
            with bugs_of_switches.with_bug(name):
                hit = next((one for one in map(switches.played, seeds) if one.wrong), None)
            if hit is not None:
                found[name] = {"seed": hit.seed, "said": hit.wrong}
            print(f"{name}: {found.get(name)}", flush=True)
    file.write_text(json.dumps(found, indent=1) + "\n")
    return int(len(found) < len(bugs_of_switches.BUGS))


def _told(figures: dict[str, int]) -> str:
    return ", ".join(f"{figures.get(name, 0):,} {name}" for name in COUNTED)


def played(
    seeds: range, processes: int, some_seeds: Played = some_seeds
) -> Iterator[tuple[dict[str, int], list[str]]]:
    """Play seeds in pieces of `AT_ONCE`, in order. A signal ends the run after the pieces that have begun, so
    that the played seeds have no gap.
    """
    stop = Stop()
    pieces = (seeds[at : at + AT_ONCE] for at in range(0, len(seeds), AT_ONCE) if not stop.asked)
    if processes == 1:  # in place, where it can be measured
        yield from map(some_seeds, pieces)
        return
    with ProcessPoolExecutor(processes, initializer=_deaf) as pool:
        running = deque[Future[Some]]()
        for piece in pieces:
            running.append(pool.submit(some_seeds, piece))
            if len(running) > IN_LINE * processes:
                yield running.popleft().result()
        for one in running:
            yield one.result()


class Stop:
    """Whether a signal has asked to stop; the second one ends everything."""

    def __init__(self) -> None:
        self.asked = False
        for number in STOPS:
            signal.signal(number, self._ask)

    def _ask(self, number: int, _: object) -> None:
        self.asked = True
        signal.signal(number, signal.SIG_DFL)
        print("stopping behind the seeds that have begun", file=sys.stderr)


def _deaf() -> None:
    """Leave signals to the process that adds up."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
