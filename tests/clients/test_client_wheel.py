"""The wheel of the Python client: what it needs, and that it runs in the oldest and the newest Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from connectors.embedded import EmbeddedValkey

ROOT = Path(__file__).parents[2] / "clients" / "python"
PROGRAM = """
import asyncio, sys
from audiopixel_client import Client
from audiopixel_client.testing import fill

url, namespace = sys.argv[1:]
want = fill(url, namespace)
with Client(url, namespace=namespace) as client:
    assert {name: client[name].reason for name in want} == want, list(client)
    assert client["usable"].factor == 1.25

async def main():
    async with Client(url, namespace=namespace, placements=["usable"]) as client:
        return client["usable"].factor

assert asyncio.run(main()) == 1.25
print("well")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    build = (
        [uv, "build", "--quiet", "--wheel", "--out-dir"]
        if uv
        else [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    )
    subprocess.run([*build, str(folder), str(source)], check=True, timeout=240)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_requires_redis_alone_and_declares_its_pythons(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith("/METADATA"))
        metadata = files.read(name).decode()
        tops = {name.split("/")[0] for name in files.namelist()}
    assert tops == {"audiopixel_client", name.split("/")[0]}
    assert re.findall(r"^Requires-Dist: (.*)$", metadata, re.M) == [
        "redis>=5",
        'hiredis>=2; extra == "hiredis"',
    ]
    assert "Requires-Python: >=3.9\n" in metadata
    declared = re.findall(r"^Classifier: Programming Language :: Python :: (3\.\d+)$", metadata, re.M)
    assert declared == [f"3.{minor}" for minor in range(9, 15)]


def python(version: str) -> str | None:
    """An interpreter of this machine; of pyenv's too."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [str(path) for path in sorted(root.glob(f"{version}.*/bin/python"))]
    on_path = shutil.which(f"python{version}")
    if on_path and "shims" not in on_path:
        found.insert(0, on_path)
    return found[0] if found else None


@pytest.mark.parametrize(
    ("version", "redis"), [("3.9", "redis==5.0.0"), ("3.13", "redis"), ("3.14", "redis")]
)
def test_it_runs_in_a_bare_python(
    version: str, redis: str, wheel: Path, tmp_path: Path, valkey: EmbeddedValkey
) -> None:
    base = python(version)
    if base is None:
        pytest.skip(f"needs Python {version}: uv python install {version}")
    subprocess.run([base, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    own = str(tmp_path / "venv" / "bin" / "python")
    install = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", redis, str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=240)
    if "No matching distribution found for redis" in done.stderr:
        pytest.skip("needs a package index")
    assert done.returncode == 0, done.stderr
    command = [own, "-c", PROGRAM, valkey.url, f"bare{version}:v1"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.stdout == "well\n", run.stderr
