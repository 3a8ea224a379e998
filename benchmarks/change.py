"""How many files one more counted event, one more scope and one more export touch.

Run it as `python -m benchmarks.change`. Each change is a patch in `benchmarks/changes`, applied to a scratch
copy of the tree; a patch that no longer applies is an error. Files that the tree's own commands generate do
not count. `--prove` runs the checks that show the change whole. Lists of names that stand twice, and storage
mechanisms outside the store, are printed too.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.bars import ROOT
from flows.check import TAKES
from flows.generated import FILES
from flows.model.catalogue.fields import SCOPE_NAMES
from flows.model.catalogue.metrics import METRICS
from flows.model.events import EVENTS
from flows.model.fields import FIELDS as ROW_FIELDS

PATCHES: Final = ROOT / "benchmarks" / "changes"
PRODUCT: Final = ("flows", "connectors", "dashboards")
GENERATORS: Final[Sequence[Sequence[str]]] = (("flows.generated",),)
"""Modules that write generated files; `python -m` runs each in the changed tree."""


class Change(NamedTuple):
    """One of the changes.

    Attributes:
        what: the change, for people.
        most: files that it may touch.
        tests: what proves it whole in the changed tree, as arguments of pytest.
    """

    what: str
    most: int
    tests: Sequence[str]


CHANGES: Final = {
    "pause": Change(
        "one more counted event: pauses, like mutes",
        8,
        (
            "tests/flows/test_change.py",
            "tests/flows/plays/test_plays.py",
            "tests/flows/rows/test_windows.py",
            "tests/flows/test_methodology.py",
            "tests/flows/intake/test_pixel_schema.py",
            "tests/flows/reconcile/test_reconcile_rules.py",
        ),
    ),
    "scope": Change(
        "one more scope: markets, as stations are one",
        12,
        (
            "tests/flows/test_change.py",
            "tests/flows/intake/test_pixel_schema.py",
            "tests/flows/intake/test_events.py",
            "tests/flows/delivery/test_plans.py",
            "tests/flows/collector/test_tags.py",
            "tests/flows/test_generated.py",
        ),
    ),
    "export": Change(
        "one more export: Microsoft Teams, like Slack",
        6,
        (
            "tests/flows/exports/test_targets_that_fail.py",
            "-k",
            "teams",
        ),
    ),
}
LEAST: Final = 6
"""The names of a list, from which on it counts as one."""
NAMES: Final = frozenset(
    (*TAKES, *EVENTS, *SCOPE_NAMES, *ROW_FIELDS, *(metric.name for metric in METRICS))
)  # fmt: skip
"""Fields, events, scopes, metrics and fields of rows: the words of the catalogue."""


def copy_tree(to: Path) -> None:
    """Copy the files that git knows, as they stand in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def files_of(patch: str) -> list[str]:
    """The files that a patch changes, makes or removes."""
    return sorted(set(re.findall(r"^diff --git a/(?:\S+) b/(\S+)$", patch, re.M)))


def apply(name: str, tree: Path) -> list[str]:
    """Apply a change to a copy of the tree and generate what follows; returns the files changed by hand.

    Raises:
        subprocess.CalledProcessError: the patch does not apply, or a generator fails.
    """
    patch = PATCHES / f"{name}.patch"
    run = {"cwd": tree, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["git", "apply", "--unidiff-zero", str(patch)], **run)  # type: ignore[call-overload]
    for module in GENERATORS:
        subprocess.run([sys.executable, "-m", *module], **run)  # type: ignore[call-overload]
    return files_of(patch.read_text())


def prove(name: str, tree: Path) -> bool:
    """True if the checks of a change pass in the changed tree."""
    if (own := PATCHES / f"prove_{name}.py").exists():
        shutil.copy2(own, tree / "tests" / "flows" / "test_change.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CHANGES[name].tests]
    return subprocess.run(command, cwd=tree, check=False).returncode == 0


MECHANISMS: Final = {
    "probe loops": r"\(slot \+ .*\) [&%]|slot == capacity",
    "classes of runs": r"^class \w*(Runs?|(?<!_)Segment)\b",
    "journals": r"^class \w*Journal\b",
    "interners": r"setdefault\(\w+, len\(self|self\._numbers\[\w+\] = len\(",
}
"""What belongs into `flows/state`, and how its code looks."""
_ELSEWHERE: Final = ("flows/state/", "flows/reconcile/", "flows/archive/", "connectors/")
"""The store, the oracle, and files that are no state of the flow."""


def mechanisms() -> dict[str, list[str]]:
    """The places of each of `MECHANISMS` outside the store."""
    found: dict[str, list[str]] = {name: [] for name in MECHANISMS}
    for path in sorted((ROOT / "flows").rglob("*.py")):
        place = str(path.relative_to(ROOT))
        if not place.startswith(_ELSEWHERE):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                for name, look in MECHANISMS.items():
                    if re.search(look, line):
                        found[name].append(f"{place}:{number}")
    return found


class Spelt(NamedTuple):
    """A list of the catalogue's names in a file of the product."""

    place: str
    names: frozenset[str]


def spelt() -> Iterator[Spelt]:
    """The lists of at least `LEAST` of the catalogue's names: literals, keys, fields of a class."""
    for room in PRODUCT:
        for path in sorted((ROOT / room).rglob("*.py")):
            for line, names in _literals(ast.parse(path.read_text())):
                if len(known := NAMES.intersection(names)) >= LEAST:
                    yield Spelt(f"{path.relative_to(ROOT)}:{line}", known)
        for path in sorted((ROOT / room).rglob("*.js")):
            if "vendor" not in path.parts and str(path.relative_to(ROOT)) not in FILES:
                text = path.read_text()
                for found in re.finditer(r"\[[^][]*\]|\{[^{}]*\}", text):
                    words = re.findall(r"\"([\w.]+)\"|\b(\w+):", found.group())
                    known = NAMES.intersection(word for pair in words for word in pair)
                    if len(known) >= LEAST:
                        line = text.count("\n", 0, found.start()) + 1
                        yield Spelt(f"{path.relative_to(ROOT)}:{line}", known)


def _literals(module: ast.Module) -> Iterator[tuple[int, set[str]]]:
    inside: set[ast.AST] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            targets = (part.target for part in node.body if isinstance(part, ast.AnnAssign))
            yield node.lineno, {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict | ast.BinOp) and node not in inside:
            inside.update(ast.walk(node))
            yield node.lineno, set(_texts(node))


def _texts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str() as text):
            yield text
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                yield from _texts(value if key is None else key)
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts) | ast.Call(args=parts):
            for part in parts:
                yield from _texts(part)
        case ast.Starred(value=value):
            yield from _texts(value)
        case ast.BinOp(left=left, right=right):
            yield from _texts(left)
            yield from _texts(right)


def duplicates(lists: Sequence[Spelt]) -> list[tuple[Spelt, Spelt]]:
    """The lists that repeat an earlier one of another file: they share at least `LEAST` names, and two thirds
    of all their names.
    """
    found = []
    for at, one in enumerate(lists):
        for other in lists[:at]:
            same = len(one.names & other.names)
            file, elsewhere = (spelt.place.partition(":")[0] for spelt in (one, other))
            if file != elsewhere and same >= LEAST and 3 * same >= 2 * len(one.names | other.names):
                found.append((one, other))
                break
    return found


def main() -> int:
    """Print the figures; exit code 1 where a change touches more files than it may, or is not proven."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.change", description=__doc__)
    parser.add_argument("changes", nargs="*", help=f"of {', '.join(CHANGES)}; all by default")
    parser.add_argument("--prove", action="store_true", help="run the checks of the changed tree")
    parser.add_argument("--list", action="store_true", help="name the files, and the lists that stand twice")
    arguments = parser.parse_args()
    right = True
    for name in arguments.changes or CHANGES:
        change = CHANGES[name]
        with tempfile.TemporaryDirectory(prefix="audiopixel-change-") as directory:
            copy_tree(Path(directory))
            files = apply(name, Path(directory))
            proven = prove(name, Path(directory)) if arguments.prove else None
        said = {True: "proven", False: "NOT PROVEN", None: "not proven here: --prove"}[proven]
        print(f"{change.what}: {len(files)} files, at most {change.most}; {said}")
        if arguments.list:
            print("".join(f"  {file}\n" for file in files), end="")
        right &= len(files) <= change.most and proven is not False
    found = duplicates(list(spelt()))
    print(f"lists of names that stand twice: {len(found)}")
    if arguments.list:
        print("".join(f"  {one.place} repeats {other.place}\n" for one, other in found), end="")
    for name, places in mechanisms().items():
        print(f"{name} outside flows/state: {len(places)} {' '.join(places)}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
