"""The writer: every message once at its offset, hours in order, and a kill anywhere loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from archive_support import HOUR_MS, archived, messages_of, mixed, pixel, send, texts, topic_settings, whole

from connectors.buckets import objects
from connectors.embedded import EmbeddedBroker
from connectors.files import FileInput
from connectors.objects import Away, Directory, Objects
from connectors.stream import EndOfInput
from flows.archive import ArchiveInput
from flows.archive.manifest import part_paths, parts
from flows.archive.message_lines import line_of
from flows.errors import StateError
from flows.intake import is_malformed
from flows.settings import Settings

Make = Callable[..., Settings]
NOW_MS = int(time.time() * 1000)


def test_each_message_is_stored_once_with_its_offset_and_timestamp(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path
) -> None:
    settings = topic_settings(broker, settings_of, archive_bytes=1 << 16)
    sent = [(n % 2, mixed(n), NOW_MS - 10_000 + n) for n in range(3_000)]
    send(settings, sent[:1_000])
    archived(settings, tmp_path)
    send(settings, sent[1_000:])
    archived(settings, tmp_path)
    found = whole(Directory(tmp_path))
    assert (found.messages, found.partitions) == (3_000, 2)
    assert found.malformed == sum(is_malformed(value) for _, value, _ in sent) > 100
    assert found.segments >= 4
    for partition in (0, 1):
        own = [one for one in messages_of(Directory(tmp_path)) if one[0] == partition]
        wanted = [(line_of(value), ts) for to, value, ts in sent if to == partition]
        assert [offset for _, offset, _, _ in own] == list(range(1_500))
        assert [ts for _, _, ts, _ in own] == [ts for _, ts in wanted]
        assert [line for *_, line in own] == [b"" if is_malformed(line) else line for line, _ in wanted]


def test_a_segment_is_of_one_hour_and_hours_never_go_back(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path
) -> None:
    settings = topic_settings(broker, settings_of, partitions=1)
    hour_ms = NOW_MS // HOUR_MS * HOUR_MS - 5 * HOUR_MS
    stamps = [hour_ms, hour_ms + HOUR_MS, hour_ms + 10, NOW_MS + 10**9, hour_ms + 2 * HOUR_MS]
    send(settings, [(0, pixel(n), stamp) for n, stamp in enumerate(stamps)])
    archived(settings, tmp_path)
    store = Directory(tmp_path)
    whole(store)
    ((_, paths),) = part_paths(store).items()
    segments = [one for part in parts(store, paths) for one in part.segments]
    hours = [one.hour_ms for one in segments]
    assert hours == sorted(hours)
    assert hours[:2] == [hour_ms, hour_ms + HOUR_MS]
    assert [one.messages for one in segments] == [1, 2, 2], "one of the past is of the hour in which it came"
    assert hours[-1] <= int(time.time() * 1000), "nobody's clock leads ours"


class Killed(BaseException):
    """End the writer like a SIGKILL: no later code runs."""


class Dying(Objects):
    """A store whose process dies at a step, before or behind what it does."""

    def __init__(self, store: Objects, at: int, behind: bool) -> None:
        self._store, self._left, self._behind = store, at, behind

    def _step(self, do: Callable[[], object]) -> object:
        self._left -= 1
        if self._left == 0 and not self._behind:
            raise Killed
        done = do()
        if self._left == 0:
            raise Killed
        return done

    def alone(self) -> AbstractContextManager[None]:
        return self._store.alone()

    def put(self, path: str, body: bytes) -> None:
        self._step(lambda: self._store.put(path, body))

    def put_file(self, path: str, file: Path) -> None:
        self._step(lambda: self._store.put_file(path, file))

    def swap(self, path: str, body: bytes, tag: str | None) -> str | None:
        return self._step(lambda: self._store.swap(path, body, tag))  # type: ignore[return-value]

    def get(self, path: str) -> tuple[bytes, str | None]:
        return self._store.get(path)

    def delete(self, path: str) -> None:
        self._step(lambda: self._store.delete(path))

    def names(self, prefix: str) -> list[str]:
        return self._store.names(prefix)


def test_a_kill_at_each_step_leaves_no_gap_and_no_repeat(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path
) -> None:
    settings = topic_settings(broker, settings_of, archive_bytes=1 << 16)
    send(settings, [(n % 2, mixed(n), NOW_MS - 10_000 + n) for n in range(4_000)])
    sent = 4_000
    for at in range(1, 11):
        for behind in (False, True):
            root = tmp_path / f"{at}-{behind}"
            with pytest.raises(Killed):
                archived(settings, Dying(Directory(root), at, behind))
            archived(settings, root)
            found = whole(Directory(root))
            assert found.messages == sent
            assert not [path for path in texts(root) if path.endswith(".part")]


def test_a_bucket_has_the_same_and_finds_a_second_writer(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path, s3: str
) -> None:
    settings = topic_settings(broker, settings_of)
    send(settings, [(n % 2, mixed(n), NOW_MS - 10_000 + n) for n in range(500)])
    archived(settings, tmp_path)
    store = objects(s3)
    archived(settings, store)
    assert whole(store).messages == whole(Directory(tmp_path)).messages == 500
    assert list(messages_of(store)) == list(messages_of(Directory(tmp_path)))

    class Meddled(Dying):
        """Somebody else writes the manifest first."""

        def swap(self, path: str, body: bytes, tag: str | None) -> str | None:
            self._store.put(path, body + b"\n")
            return self._store.swap(path, body, tag)

    send(settings, [(0, pixel(1), NOW_MS)])
    with pytest.raises(StateError, match="another process has claimed"):
        archived(settings, Meddled(store, 10**9, False))


def test_a_temporarily_refusing_store_loses_nothing(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.archive.writer.AGAIN_S", 0.01)
    settings = topic_settings(broker, settings_of)
    send(settings, [(n % 2, mixed(n), NOW_MS - 10_000 + n) for n in range(500)])

    class Full(Dying):
        def put(self, path: str, body: bytes) -> None:
            self._left -= 1
            if self._left % 3:
                raise Away("no space left")
            self._store.put(path, body)

    archived(settings, Full(Directory(tmp_path), 10**6, False))
    assert whole(Directory(tmp_path)).messages == 500


def test_an_archive_of_another_topic_is_refused(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path
) -> None:
    settings = topic_settings(broker, settings_of)
    send(settings, [(0, pixel(1), NOW_MS)])
    archived(settings, tmp_path)
    with pytest.raises(StateError, match="is of the topic"):
        archived(topic_settings(broker, settings_of), tmp_path)


@pytest.mark.parametrize("change", ["flip", "cut", "gone", "gap", "more"])
def test_check_finds_each_fault(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path, change: str
) -> None:
    from flows.archive import check

    settings = topic_settings(broker, settings_of, partitions=1, archive_bytes=1 << 16)
    send(settings, [(0, mixed(n), NOW_MS - 10_000 + n) for n in range(2_500)])
    archived(settings, tmp_path)
    whole(Directory(tmp_path))
    segments = sorted((tmp_path / "segments").rglob("*.zst"))
    (manifest,) = (tmp_path / "manifest").rglob("*.json")
    assert len(segments) > 2
    body = segments[1].read_bytes()
    if change == "flip":
        segments[1].write_bytes(body[:50] + bytes([body[50] ^ 1]) + body[51:])
    elif change == "cut":
        segments[1].write_bytes(body[:-1])
    elif change == "gone":
        segments[1].unlink()
    elif change == "gap":
        manifest.write_bytes(
            manifest.read_bytes()
            .replace(b'"next": 2500', b'"next": 2501')
            .replace(b'"first": 2000', b'"first": 2001')
        )
    else:
        segments[1].with_name("stray.ndjson.zst").write_bytes(body)
    assert len(check(Directory(tmp_path)).wrong) >= 1


def _read(reader: object, limit: int) -> Iterator[tuple[int, bytes, int]]:
    while True:
        try:
            messages = reader.read(limit)  # type: ignore[attr-defined]
        except EndOfInput:
            return
        yield from zip(messages.positions, messages.values, messages.timestamps_ms or [], strict=True)


@pytest.mark.parametrize("limit", [7, 1_000, 10_000])
def test_an_archive_is_read_at_any_offset(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path, limit: int
) -> None:
    settings = topic_settings(broker, settings_of, partitions=1, archive_bytes=1 << 16)
    send(settings, [(0, mixed(n), NOW_MS - 10_000 + n) for n in range(2_500)])
    archived(settings, tmp_path)
    source = ArchiveInput(Directory(tmp_path))
    (name,) = source.partitions()
    everything = list(_read(source.open(name, None), limit))
    assert [position for position, _, _ in everything] == list(range(2_500))
    for position in (0, 1, 999, 2_000, 2_499, 2_500):
        assert list(_read(source.open(name, position), limit)) == everything[position:]
    with pytest.raises(StateError, match="is not in the archive"):
        source.open(name, 2_501)


def test_a_log_from_an_archive_equals_that_of_a_file(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path
) -> None:
    settings = topic_settings(broker, settings_of, partitions=1)
    values = [mixed(n) for n in range(100)]
    send(settings, [(0, value, NOW_MS) for value in values])
    archived(settings, tmp_path / "archive")
    (segment,) = (tmp_path / "archive" / "segments").rglob("*.zst")
    lines = FileInput([str(segment)]).open(str(segment), None).read(1_000).values
    assert list(lines) == [b"" if is_malformed(one) else line_of(one) for one in values]
