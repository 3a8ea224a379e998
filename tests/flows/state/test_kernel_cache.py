"""Compiled kernels are of the sources that they were compiled from."""

import os
from pathlib import Path

from flows.state.kernel_cache import KEPT, fingerprint, place


def package(directory: Path, width: int = 7) -> Path:
    """A package with a kernel that takes a constant from another module."""
    root = directory / "flows"
    for name, text in {
        "model/pixel.py": f"WIDTH = {width}\n",
        "plays/slots.py": "from flows.model.pixel import WIDTH\n\n@kernel\ndef width(): ...\n",
        "plays/shard.py": "import flows.plays.slots\n",
        "viewers/page.py": "TITLE = 1\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_constant_that_a_kernel_takes_from_another_module_makes_another_place(tmp_path: Path) -> None:
    before = place(package(tmp_path), "")
    assert place(package(tmp_path), "") == before
    assert place(package(tmp_path, width=8), "") != before


def test_what_no_kernel_can_depend_on_makes_none(tmp_path: Path) -> None:
    root = package(tmp_path)
    before = fingerprint(root)
    (root / "viewers/page.py").write_text("TITLE = 2\n")
    assert fingerprint(root) == before
    (root / "plays/shard.py").write_text("LIMIT = 2\n")
    assert fingerprint(root) != before


def test_a_given_directory_is_the_base(tmp_path: Path) -> None:
    given = tmp_path / "given"
    assert Path(place(package(tmp_path), str(given))).parent == given


def test_only_the_latest_places_stay(tmp_path: Path) -> None:
    places = []
    for width in range(KEPT + 3):
        places.append(Path(place(package(tmp_path, width), "")))
        os.utime(places[-1], (width + 1, width + 1))
    assert Path(place(package(tmp_path, KEPT + 2), "")) == places[-1]
    assert [one.exists() for one in places] == [False, False, *[True] * (KEPT + 1)]
