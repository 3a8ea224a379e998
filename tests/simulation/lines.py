"""The share of the cores' lines that histories run, kernels included: nothing is compiled meanwhile."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

CORES: Final = (
    *("attribution", "clients", "delivery", "engine", "intake", "plays", "publish", "rows", "state"),
)
"""Packages of `flows`: the stages, the state and the engine."""
LEFT_OUT: Final = {
    "engine/cluster.py": "a cluster's processes",
    "engine/foundation.py": "what a store's settings were",
    "engine/execution.py": "Bytewax's start, and its threads",
    "engine/start.py": "the command's start",
    "engine/trace.py": "traces",
    "engine/exit_while_waiting.py": "signals in native code",
    "delivery/plan_topics.py": "Kafka's consumer",
    "publish/lines.py": "Kafka's producer, and files of lines",
    "publish/server_clock.py": "the publisher's thread, whose clock is given here",
    "state/allocator.py": "the C library",
    "state/kernel_cache.py": "the compiler's files",
    "state/bits.py": "what the compiler calls",
    "intake/text_masks.py": "what the compiler calls; its loops' plain form is in the scanner",
    "state/siphash.py:_load64": "what the compiler calls",
    "state/save_accounts.py": "the command `state`",
    "engine/meeting.py:in_redis": "the members' way through Redis, at a start",
    "engine/meeting.py:_round": "the members' way through Redis, at a start",
    "engine/place.py:place_of": "the command's start",
    "delivery/plan_source.py:read_book": "commands",
    "state/hyperloglog.py:unpack_registers": "readers of sketches",
    "engine/source.py:StopSignal.on_signals": "signals",
    "engine/save_threads.py": "threads",
    "engine/saved_step.py:drain": "threads",
    "publish/handover.py:Handover._work": "the publisher's thread",
    "intake/erasure.py:deny": "the command `forget`",
    "intake/erasure.py:refuse_less": "the command `run --recompute`",
}
"""Files, and functions of files, that no history can run, and of what they are."""


def measure(seeds: int, first: int, processes: int) -> int:
    """Play seeds in processes of their own, measured, and print the shares; 1 where one failed."""
    with TemporaryDirectory() as directory:
        running = []
        for number in range(processes):
            begin = first + seeds * number // processes
            many = first + seeds * (number + 1) // processes - begin
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "coverage",
                "run",
                "--source=flows",
                "-m",
                "simulation",
            ]
            command += ["--first", str(begin), "--seeds", str(many), "--processes", "1"]
            env = os.environ | {"NUMBA_DISABLE_JIT": "1", "COVERAGE_FILE": f"{directory}/.coverage.{number}"}
            running.append(subprocess.Popen(command, env=env))
        failed = [one.wait() for one in running]
        print(*_report(Path(directory)), sep="\n")
    return int(any(failed))


def _report(directory: Path) -> Iterator[str]:
    from coverage import Coverage  # of the extra `dev`

    found = Coverage(data_file=str(directory / ".coverage"), data_suffix=False)
    found.combine([str(directory)])
    root, lines, missed = Path(sys.modules["flows"].__path__[0]), 0, 0
    for package in CORES:
        for path in sorted((root / package).glob("*.py")):
            _, all_lines, _, missing, _ = found.analysis2(str(path))
            name = f"{package}/{path.name}"
            out = _left_out(name, path)
            mine, gone = set(all_lines) - out, set(missing) - out
            lines, missed = lines + len(mine), missed + len(gone)
            if gone:
                yield f"{name:40} {1 - len(gone) / len(mine):6.1%}  {_ranges(sorted(gone))}"
    yield "\nLeft out, since no history can run them:"
    yield from (f"{name:40} {why}" for name, why in LEFT_OUT.items())
    yield f"\n{1 - missed / lines:.2%} of {lines:,} lines of the cores were run"


def _left_out(name: str, path: Path) -> set[int]:
    """The numbers of a file's lines that are left out."""
    if name in LEFT_OUT:
        return set(range(1, 10_000))
    out = set[int]()
    for of, node in _functions(ast.parse(path.read_text()), ""):
        if f"{name}:{of}" in LEFT_OUT:
            out |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return out


def _functions(tree: Any, before: str) -> Iterator[tuple[str, Any]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield before + node.name, node
            yield from _functions(node, f"{before}{node.name}.")


def _ranges(lines: list[int]) -> str:
    found: list[list[int]] = []
    for line in lines:
        if found and line == found[-1][1] + 1:
            found[-1][1] = line
        else:
            found.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)
