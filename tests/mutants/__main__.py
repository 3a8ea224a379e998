"""Plays mutants of the product, and prints the share that the tests find.

python -m mutants --contexts     which test reaches which line: the suite once, under coverage (minutes)
python -m mutants --count 400    mutants of seed 1, each with the tests that reach its line

A mutant lives in a copy of the tree. It is killed if one of its tests fails, or takes too long. Results go
to `build/mutants/results.json` after each mutant, and a second call goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Final

from coverage import CoverageData

from mutants.sites import Mutant, mutant_of, sites

ROOT: Final = Path(__file__).parents[2]
BUILD: Final = ROOT / "build" / "mutants"
PRODUCT: Final = ("flows", "connectors", "dashboards", "clients/python")
MAX_TESTS: Final = 40
"""The most tests that a mutant meets, spread over the files that reach its line."""
LONGEST_S: Final = 240.0
"""The time of a mutant's tests from which on it counts as killed: it stands still."""


def sampled(seed: int, count: int) -> list[Mutant]:
    """`count` mutants, each place of the product as likely as any other."""
    rng, places = Random(seed), []
    listed = subprocess.run(
        ("git", "ls-files", *PRODUCT), cwd=ROOT, capture_output=True, text=True, check=True
    )
    for path in sorted(one for one in listed.stdout.split() if one.endswith(".py")):
        tree = ast.parse((ROOT / path).read_text())
        places += [(path, number) for number, _ in enumerate(sites(tree))]
    found = []
    for path, number in rng.sample(places, count):
        text = (ROOT / path).read_text()
        kind, node = list(sites(ast.parse(text)))[number]
        found.append(mutant_of(path, text, kind, node, rng))
    return found


def write_contexts(tests: list[str]) -> int:
    """Run tests under coverage, with each test's name as the context of the lines that it reaches."""
    BUILD.mkdir(parents=True, exist_ok=True)
    config = BUILD / "coveragerc"
    source = "\n    ".join(str(ROOT / one) for one in PRODUCT)
    config.write_text(
        f"[run]\ndata_file = {BUILD / 'coverage'}\ndynamic_context = test_function\nparallel = true\n"
        f"patch = subprocess\nsource =\n    {source}\n"
    )
    environment = {**os.environ, "COVERAGE_RCFILE": str(config), "NUMBA_DISABLE_JIT": "0"}
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={config}", "-m", "pytest", "-q"]
    done = subprocess.run([*command, "-n", "2", "-m", "not long", *tests], cwd=ROOT, env=environment)
    subprocess.run([sys.executable, "-m", "coverage", "combine", f"--rcfile={config}"], cwd=ROOT, check=True)
    return done.returncode


def tests_of(data: CoverageData, mutant: Mutant) -> list[str]:
    """The tests that reach a mutant's line; else those that reach its file, as for compiled loops."""
    by_line = data.contexts_by_lineno(str(ROOT / mutant.path))
    reached = set(by_line.get(mutant.line, ())) - {""} or {
        one for some in by_line.values() for one in some
    } - {""}
    by_file: dict[str, list[str]] = {}
    for context in sorted(reached):
        module, _, name = context.rpartition(".")
        if name.startswith("test_"):
            by_file.setdefault(f"{module.replace('.', '/')}", []).append(name)
    found: list[str] = []
    while by_file and len(found) < MAX_TESTS:
        for module in [*by_file]:
            found.append(f"{module}::{by_file[module].pop(0)}")
            if not by_file[module]:
                del by_file[module]
    return found[:MAX_TESTS]


def located(names: list[str]) -> list[str]:
    """Test ids by the paths of their files."""
    paths = {path.stem: str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    found = []
    for name in names:
        module, _, test = name.partition("::")
        if path := paths.get(module.rpartition("/")[2]):
            found.append(f"{path}::{test}")
    return found


def played(copy: Path, mutant: Mutant, tests: list[str]) -> str:
    """`killed`, `survived`, or `unreached` without tests."""
    if not tests:
        return "unreached"
    target = copy / mutant.path
    before = target.read_text()
    target.write_text(mutant.text)
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, timeout=LONGEST_S, capture_output=True)
        return "survived" if done.returncode == 0 else "killed"
    except subprocess.TimeoutExpired:
        return "killed"
    finally:
        target.write_text(before)


def main() -> int:
    """Write contexts, or play mutants."""
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--contexts", nargs="*", metavar="TEST", help="write the contexts of the suite, or of tests"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=400)
    arguments = parser.parse_args()
    if arguments.contexts is not None:
        return write_contexts(arguments.contexts)
    data = CoverageData(str(BUILD / "coverage"))
    data.read()
    path = BUILD / "results.json"
    results: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    copy = BUILD / "tree"
    shutil.rmtree(copy, ignore_errors=True)
    subprocess.run(("git", "clone", "-q", str(ROOT), str(copy)), check=True)
    for mutant in sampled(arguments.seed, arguments.count)[len(results) :]:
        tests = located(tests_of(data, mutant))
        verdict = played(copy, mutant, tests)
        fields = mutant._asdict()
        del fields["text"]
        results.append({**fields, "tests": len(tests), "verdict": verdict})
        path.write_text(json.dumps(results, indent=1))
        print(
            f"{len(results)} {verdict}: {mutant.path}:{mutant.line} {mutant.before!r} -> {mutant.after!r}",
            flush=True,
        )
    counts = Counter(one["verdict"] for one in results)
    print(f"{len(results)} mutants: {dict(counts)}, {counts['killed'] / max(1, len(results)):.3f} killed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
