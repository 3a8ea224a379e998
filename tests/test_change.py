"""The yardsticks of `benchmarks.change`: each change still applies, and a list that stands twice is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import change
from benchmarks.change import CHANGES, ROOT, Spelt, apply, copy_tree, duplicates, files_of, mechanisms, spelt

QUARTILES = ("starts", "first_quartiles", "midpoints", "third_quartiles", "completes")


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_applies_and_touches_no_more_files_than_it_may(name: str, tmp_path: Path) -> None:
    copy_tree(tmp_path)
    files = apply(name, tmp_path)
    assert 0 < len(files) <= CHANGES[name].most
    changed = [file for file in files if not _same(file, tmp_path)]
    assert changed == files


def _same(file: str, tree: Path) -> bool:
    ours = ROOT / file
    return ours.exists() and ours.read_bytes() == (tree / file).read_bytes()


def test_a_patch_names_each_of_its_files_once() -> None:
    patch = "".join(f"diff --git a/{name} b/{name}\n@@ -1 +1 @@\n-a\n+b\n" for name in ("x.py", "d/y.md"))
    assert files_of(patch) == ["d/y.md", "x.py"]


def test_a_list_sharing_two_thirds_of_its_names_is_a_duplicate() -> None:
    one = Spelt("a.py:1", frozenset((*QUARTILES, "skips", "mutes")))
    again = Spelt("b.py:9", frozenset((*QUARTILES, "skips")))
    less = Spelt("c.py:9", frozenset((*QUARTILES, "clicks", "errors", "orphans", "repaired")))
    assert duplicates([one, again, less]) == [(again, one)]
    assert duplicates([one, again._replace(place="a.py:30")]) == [], "a file may repeat itself"


def test_the_lists_of_the_product_are_found() -> None:
    places = {one.place.partition(":")[0]: one.names for one in spelt()}
    assert places["flows/model/catalogue/fields.py"] >= {"event_id", "placement_id", "listener_id"}


def test_storage_mechanisms_outside_the_store_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any(mechanisms().values()), "flows/state has it once"
    lines = {
        "probe loops": "        slot = (slot + np.uint64(1)) & mask",
        "classes of runs": "class HomeSegment(Segment):",
        "journals": "class RowJournal:",
        "interners": "        number = self._numbers.setdefault(name, len(self.names))",
    }
    for room in ("plays", "state"):
        (tmp_path / "flows" / room).mkdir(parents=True)
        (tmp_path / "flows" / room / "own.py").write_text("\n".join(lines.values()))
    monkeypatch.setattr(change, "ROOT", tmp_path)
    assert mechanisms() == {name: [f"flows/plays/own.py:{n}"] for n, name in enumerate(lines, 1)}
