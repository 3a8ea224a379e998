"""Compiled kernels are of the sources that they were compiled from."""

import os
from pathlib import Path

import pytest

from flows.state import kernel_cache
from flows.state.kernel_cache import OLD_PLACES, fingerprint, place, place_of_all


@pytest.fixture(autouse=True)
def changed_sources_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_imported", "_content"):
        monkeypatch.setattr(kernel_cache, name, getattr(kernel_cache, name).__wrapped__)


def package(directory: Path, width: int = 7) -> Path:
    """A package with a kernel that takes a constant from another module."""
    root = directory / "flows"
    for name, text in {
        "model/pixel.py": "from flows.model import sizes as of\nWIDTH = of.WIDTH\n",
        "model/sizes.py": f"WIDTH = {width}\n",
        "model/fields.py": "FIELDS = 1\n",
        "model/__init__.py": "from flows.model.fields import FIELDS\n",
        "plays/slots.py": "from flows.model.pixel import (\n    WIDTH,\n)\n\n@kernel\ndef width(): ...\n",
        "plays/play_shard.py": "import flows.plays.slots\nfrom flows.model import FIELDS\n",
        "viewers/page.py": "TITLE = 1\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_an_indirectly_imported_constant_changes_a_kernels_place(tmp_path: Path) -> None:
    slots = package(tmp_path) / "plays/slots.py"
    before, marks = place(slots, ""), place_of_all(slots.parents[1], "")
    assert place(slots, "") == before
    package(tmp_path, width=8)
    assert place(slots, "") != before
    assert place_of_all(slots.parents[1], "") != marks


def test_an_unrelated_module_leaves_a_kernels_place(tmp_path: Path) -> None:
    root = package(tmp_path)
    slots, shard = fingerprint(root / "plays/slots.py"), fingerprint(root / "plays/play_shard.py")
    (root / "viewers/page.py").write_text("TITLE = 2\n")
    (root / "model/fields.py").write_text("FIELDS = 2\n")
    assert fingerprint(root / "plays/slots.py") == slots
    assert fingerprint(root / "plays/play_shard.py") != shard  # it goes in by the room's door


def test_a_given_directory_is_the_base(tmp_path: Path) -> None:
    given = tmp_path / "given"
    assert Path(place(package(tmp_path) / "plays/slots.py", str(given))).parents[1] == given


def test_only_the_latest_places_of_a_module_stay(tmp_path: Path) -> None:
    places = []
    for width in range(OLD_PLACES + 3):
        places.append(Path(place(package(tmp_path, width) / "plays/slots.py", "")))
        os.utime(places[-1], (width + 1, width + 1))
    other = Path(place(tmp_path / "flows/plays/play_shard.py", ""))
    assert Path(place(package(tmp_path, OLD_PLACES + 2) / "plays/slots.py", "")) == places[-1]
    assert [path.exists() for path in (*places, other)] == [False, False, *[True] * (OLD_PLACES + 2)]
