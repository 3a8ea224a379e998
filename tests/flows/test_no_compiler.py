"""Viewers, settings, names and the oracle are imported without the compiler, whose import takes half a
second.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VIEWERS = sorted(
    f"flows.viewers.{path.stem}"
    for path in (ROOT / "flows" / "viewers").glob("[a-z]*.py")
    if path.stem != "overlap"  # adds up sketches by compiled loops
)
NAMES = ("flows.model.fields", "flows.model.messages", "flows.generated")
COMMANDS = ("flows.cli.app", "flows.cli.exporter", "flows.cli.top", "flows.settings")
ORACLE = ("flows.reconcile",)


def loaded(modules: tuple[str, ...], wanted: str, *path: str) -> bool:
    """True if a fresh interpreter loads `wanted` with these modules."""
    code = (
        f"import sys; sys.path[:0] = {[*path]}; import {', '.join(modules)}; print({wanted!r} in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip() == "True"


@pytest.mark.parametrize(
    "modules", [VIEWERS, NAMES, COMMANDS, ORACLE], ids=["viewers", "names", "commands", "oracle"]
)
def test_no_compiler_is_loaded(modules: tuple[str, ...]) -> None:
    assert not loaded(modules, "numba")


def test_a_bidders_client_loads_neither_the_compiler_nor_the_flow() -> None:
    assert not loaded(("audiopixel_client",), "numba", str(ROOT / "clients" / "python"))
    assert not loaded(("audiopixel_client",), "flows", str(ROOT / "clients" / "python"))


def test_the_oracle_loads_none_of_the_flows_compiled_loops() -> None:
    assert not loaded(("flows.reconcile",), "flows.state.kernel")
    assert loaded(("flows.plays",), "flows.state.kernel"), "the flow does"
