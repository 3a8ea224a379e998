"""The package: what an installation that is not editable holds."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_file_of_a_package_is_installed_with_it() -> None:
    packages = [name.removesuffix("*") for name in SETUPTOOLS["packages"]["find"]["include"]]
    tracked = subprocess.run(
        ["git", "ls-files", "--", *packages], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = {ROOT / name for name in tracked.stdout.splitlines() if not name.endswith(".py")}
    assert files
    told = SETUPTOOLS["package-data"]
    installed = {
        path
        for package, patterns in told.items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    assert files <= installed
