"""A recovery store is held to what its state is made of; what else changes at a restart is safe."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.engine import fresh
from flows.engine.foundation import (
    FILE,
    Foundation,
    first_positions,
    lay_foundation,
    merged,
    settings_of_store,
)
from flows.errors import StateError
from flows.settings.fields import Settings
from flows.state.saves import FORMAT, Manifest, SaveStore, Unwritten, encode
from flows.state.sealed import put_sealed

KEY = b"the first secret of a flow"
FIXED: dict[str, tuple[Any, Any]] = {
    "shards": (8, 16),
    "timezone": ("Europe/London", "Europe/Berlin"),
    "app_rows": (False, True),
}
LONGEST = ("conversion_horizon", "click_window", "listen_window")


def saved(directory: Path) -> None:
    """Write a save of nothing."""
    store = SaveStore(directory)
    pieces = store.put_pieces(1, [Unwritten("step", "key", encode(None), [])])
    store.commit(Manifest(FORMAT, 1, 0, {}, 0, 1, {}, pieces))


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Path]:
    """Makes a store that has snapshots, with these settings."""

    def make(**settings: Any) -> Path:
        lay_foundation(Settings(recovery_dir=tmp_path, **settings), KEY)
        saved(tmp_path)
        return tmp_path

    return make


@pytest.mark.parametrize("name", FIXED)
def test_a_changed_foundation_is_refused_with_advice(name: str, store: Callable[..., Path]) -> None:
    was, now = FIXED[name]
    written = store(**{name: was})
    with pytest.raises(
        StateError, match=f"{name}={was}, now {name}={now}: set AUDIOPIXEL_{name.upper()} back"
    ):
        lay_foundation(Settings(recovery_dir=written, **{name: now}), KEY)
    lay_foundation(Settings(recovery_dir=written, **{name: was}), KEY)


def test_a_store_keeps_its_shards_without_a_setting(store: Callable[..., Path]) -> None:
    written = store(shards=16)
    settings = Settings(recovery_dir=written)
    assert settings.shards == 8
    lay_foundation(settings, KEY)
    assert settings_of_store(settings).shards == 16
    assert settings_of_store(Settings(recovery_dir=written, shards=4)).shards == 4


def test_a_store_without_a_save_takes_the_next_starts_shards(tmp_path: Path) -> None:
    lay_foundation(Settings(recovery_dir=tmp_path, shards=16), KEY)
    settings = Settings(recovery_dir=tmp_path)
    lay_foundation(settings, KEY)
    assert settings_of_store(settings).shards == 8


def test_another_secret_is_refused_and_neither_is_shown(store: Callable[..., Path]) -> None:
    written = store()
    with pytest.raises(StateError, match="another listener_key: set AUDIOPIXEL_LISTENER_KEY back"):
        lay_foundation(Settings(recovery_dir=written), b"another secret by mistake")
    (file,) = (path for path in written.iterdir() if path.name == "foundation")
    assert KEY not in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", LONGEST)
def test_a_memory_may_shrink_but_not_grow_again(name: str, store: Callable[..., Path]) -> None:
    days = [timedelta(days=n) for n in (5, 4, 5)]
    written = store(**{name: days[0]})
    lay_foundation(Settings(recovery_dir=written, **{name: days[1]}), KEY)
    with pytest.raises(StateError, match=rf"{name} was 4 days .* set AUDIOPIXEL_{name.upper()} back"):
        lay_foundation(Settings(recovery_dir=written, **{name: days[2]}), KEY)
    lay_foundation(Settings(recovery_dir=written, **{name: days[1]}), KEY)


def test_disabled_attribution_cannot_be_enabled_again(store: Callable[..., Path]) -> None:
    written = store()
    lay_foundation(Settings(recovery_dir=written, attribution="off"), KEY)
    with pytest.raises(StateError, match=r"attribution was off .* set AUDIOPIXEL_ATTRIBUTION back"):
        lay_foundation(Settings(recovery_dir=written), KEY)


def test_snapshots_without_their_foundation_are_refused(store: Callable[..., Path]) -> None:
    written = store()
    (written / "foundation").unlink()
    with pytest.raises(StateError, match="foundation that says what they are made of is missing"):
        lay_foundation(Settings(recovery_dir=written), KEY)


def test_a_store_without_the_app_setting_has_no_app_rows(store: Callable[..., Path]) -> None:
    written = store()
    said = json.loads((written / "foundation").read_bytes().splitlines()[0])
    assert said[0].pop("app_rows") == "False"
    (written / "foundation").write_text(json.dumps(said))
    with pytest.raises(StateError, match="set AUDIOPIXEL_APP_ROWS back"):
        lay_foundation(Settings(recovery_dir=written, app_rows=True), KEY)
    lay_foundation(Settings(recovery_dir=written), KEY)


def test_labels_may_change_at_any_start(store: Callable[..., Path]) -> None:
    written = store()
    for labels in ("planned", "any"):
        lay_foundation(Settings(recovery_dir=written, plans=written / "plans.csv", labels=labels), KEY)


@pytest.mark.parametrize(
    ("was", "flipped"),
    [
        (b'{"t/0":1234}', b'{"t/0":1034}'),
        (b'["spam"]', b'["spaM"]'),
        (b"shards", b"rhards"),
        (b"t/0", b"t/\xb0"),
    ],
    ids=["position", "reason", "name", "letter"],
)
def test_a_foundation_with_a_flipped_bit_is_refused_with_advice(
    was: bytes, flipped: bytes, store: Callable[..., Path]
) -> None:
    settings = Settings(recovery_dir=(written := store()), invalid_agents={"spam": "s"})
    lay_foundation(settings, KEY, lambda _: {"t/0": 1234})
    body = (written / "foundation").read_bytes()
    assert body.count(was) == 1
    (written / "foundation").write_bytes(body.replace(was, flipped))
    for reads in (
        lambda: lay_foundation(settings, KEY),
        lambda: settings_of_store(settings),
        lambda: first_positions(written),
    ):
        with pytest.raises(StateError, match=r"foundation is damaged.*restore all of the directory"):
            reads()


def test_an_invalid_traffic_reason_keeps_its_place_among_changing_ones(
    store: Callable[..., Path],
) -> None:
    agents = [
        {"spam": "s", "fraud": "f"},
        {"probe": "p", "fraud": "other"},
        {},
        {"scraper": "c", "probe": "p", "fraud": "f", "spam": "s"},
    ]
    written = store(invalid_agents=agents[0])
    placed_by: list[dict[str, str]] = []
    for one in agents:
        settings = Settings(recovery_dir=written, invalid_agents=one)
        lay_foundation(settings, KEY)
        placed_by.append(settings_of_store(settings).invalid_agents)
    assert [[*one.items()] for one in placed_by] == [
        [("spam", "s"), ("fraud", "f")],
        [("spam", "(?!)"), ("fraud", "other"), ("probe", "p")],
        [("spam", "(?!)"), ("fraud", "(?!)"), ("probe", "(?!)")],
        [("spam", "s"), ("fraud", "f"), ("probe", "p"), ("scraper", "c")],
    ]
    more = {f"more_{letter}": "x" for letter in "abcd"}
    with pytest.raises(StateError, match=r"room for 7 reasons .* more_d: name one of the first 7"):
        lay_foundation(Settings(recovery_dir=written, invalid_agents=more), KEY)


def test_settings_without_a_snapshot_bind_nothing(tmp_path: Path) -> None:
    lay_foundation(Settings(recovery_dir=tmp_path, shards=4), KEY)
    lay_foundation(Settings(recovery_dir=tmp_path, shards=8), b"another secret by mistake")


PARTITIONS = st.dictionaries(st.sampled_from(("t/0", "t/1", "t/2")), st.integers(0, 99), max_size=3)


@given(st.lists(PARTITIONS, min_size=1, max_size=6))
def test_where_a_partition_begins_is_decided_once(
    tmp_path_factory: pytest.TempPathFactory, starts: list[dict[str, int]]
) -> None:
    settings = Settings(recovery_dir=tmp_path_factory.mktemp("store"))
    assert first_positions(settings.recovery_dir) is None
    model: dict[str, int] = {}
    for start in starts:

        def begins(known: Mapping[str, int] | None, start: dict[str, int] = start) -> dict[str, int]:
            return {name: at for name, at in start.items() if name not in (known or {})}

        lay_foundation(settings, KEY, begins)
        model = {**start, **model}
        assert first_positions(settings.recovery_dir) == model


def test_a_store_is_fresh_until_a_save_is_committed(tmp_path: Path) -> None:
    assert fresh(None)
    assert fresh(tmp_path / "not there")
    SaveStore(tmp_path).put_pieces(1, [Unwritten("step", "key", encode(None), [])])
    assert fresh(tmp_path), "a save without a manifest is none"
    saved(tmp_path)
    assert not fresh(tmp_path)
    (tmp_path / "saves" / f"{1:020d}" / "manifest-0").write_bytes(b"damaged")
    assert not fresh(tmp_path)


def test_a_store_of_an_older_format_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "part-0.sqlite3").write_bytes(b"")
    with pytest.raises(
        StateError, match=r"SQLite files.*run the version that wrote it, or count the log anew"
    ):
        lay_foundation(Settings(recovery_dir=tmp_path), KEY)


@pytest.mark.parametrize(
    ("reasons", "right"),
    [([("a",), ("a", "b"), ()], True), ([("a",), ("a", "b"), ("a", "c")], False)],
)
def test_foundations_with_contradicting_reasons_are_refused(
    reasons: list[tuple[str, ...]], right: bool, tmp_path: Path
) -> None:
    for number, some in enumerate(reasons):
        (tmp_path / str(number)).mkdir()
        put_sealed(tmp_path / str(number) / FILE, Foundation({"shards": "8"}, {}, {}, some))
    for order in permutations(map(str, range(3))):
        if right:
            assert merged([tmp_path / name for name in order]).reasons == ("a", "b")
            continue
        with pytest.raises(StateError, match="name the directories of one cluster"):
            merged([tmp_path / name for name in order])
