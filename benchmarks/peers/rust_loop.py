"""The floor: the job as one compiled loop of Rust, without engine, state to save, or Redis."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from benchmarks.measure import Job, Result
from benchmarks.peers.built import HERE, build, directory, measured, tool

_SOURCES: Final = HERE / "rust"
_HOW_TO: Final = "install Rust's cargo (rustup.rs), and let it reach a registry of crates"


def version() -> str:
    """What is measured.

    Raises:
        Unavailable: no cargo, or no registry.
    """
    _prepared()
    found = re.search(r'name = "sonic-rs"\nversion = "([^"]+)"', (_SOURCES / "Cargo.lock").read_text())
    assert found
    return f"Rust loop, sonic-rs {found[1]}"


def run(job: Job) -> Result:
    """Run it over the log."""
    return measured([str(_prepared())], job)


def _prepared() -> Path:
    cargo = tool("cargo", _HOW_TO)
    sources = [_SOURCES / name for name in ("Cargo.toml", "Cargo.lock", "src/main.rs")]
    ready = directory("peers-rust", sources)
    if not ready.is_dir():
        half = ready.with_suffix(".part")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(_SOURCES, half)
        build([cargo, "build", "--release", "--locked", "--quiet"], half)
        half.rename(ready)
    return ready / "target" / "release" / "peers"
