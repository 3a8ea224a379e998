"""The verdict of a chaos run: compares the result with the recomputed log, and with an undisturbed flow on
the same log.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from connectors.kafka.reader import KafkaInput
from flows.cli.reconcile_settings import rules
from flows.engine.steps import RowsLogic
from flows.model.basis import BASES
from flows.model.catalogue.events import EVENTS, Way
from flows.model.dimensions import SCOPES
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.reconcile.replay_files import minute_differences
from flows.reconcile.truth import Recomputation
from flows.settings.fields import Settings
from flows.state.saves import SaveStore

UNLIKE: Final = frozenset(
    ("generation", "fence", "rev", "updated_ms", "as_of_ms", "final_through_ms", "reach_as_of_ms")
)
"""Fields of a row that say when and by whom it was written. A row whose numbers stay is not written again,
unless the flow starts anew. `against_the_log` has bounds for what is final.
"""

BY_LATENESS: Final = frozenset(
    (
        *(event.counts for event in EVENTS if event.way in (Way.MILESTONE, Way.OF_PLAY)),
        *("orphans", "repaired"),
        *("completion_rate", "completions_per_impression", "mature_completion_rate"),
        *(f"impressions_{basis}" for basis in BASES),
        *("confirmed_plays", "play_through"),
    )
)
"""What a milestone counts as goes by whether its start's minute was final when it came, and what an
impression is by whether its own was. Where the lateness has changed on the way, no log says so.
"""


_LOW_MARK: Final = re.compile(rb'(?<="low_ms":)\d+')


def messages(brokers: str, topic: str, as_log: bool = False) -> Iterator[tuple[str, int, bytes]]:
    """(partition, offset, value) of all messages in a topic. With `as_log` low marks are bounded by the
    message's timestamp, as in the flow, and marks contain that timestamp, since a log on disk has no other.
    """
    source = KafkaInput(brokers, [topic], group="audiopixel-chaos")
    for partition in source.partitions():
        reader = source.open(partition, None)
        while not reader.caught_up:
            found = reader.read(10_000)
            if found is None:
                time.sleep(0.01)
                continue
            values = found.values
            if as_log and found.timestamps_ms:
                values = [_bounded(*one) for one in zip(values, found.timestamps_ms, strict=True)]
            yield from ((partition, *one) for one in zip(found.positions, values, strict=True))
        reader.close()


def _bounded(value: bytes, stamp_ms: int) -> bytes:
    if b'"collector":' not in value:
        return value
    value = _LOW_MARK.sub(lambda low: b"%d" % min(int(low[0]), stamp_ms), value)
    return value if b'"event":' in value else b'%s,"logged_ms":%d}' % (value[:-1], stamp_ms)


def write_log(brokers: str, topic: str, directory: Path) -> dict[str, Path]:
    """The topic as NDJSON, a file a partition, line n being offset n - 1; returns the files by partition."""
    files: dict[str, Path] = {}
    for number in range(len(KafkaInput(brokers, [topic]).partitions())):
        files[f"{topic}/{number}"] = directory / f"log-{number}.ndjson"
    handles = {partition: path.open("wb") for partition, path in files.items()}
    expected = dict.fromkeys(files, 0)
    for partition, offset, value in messages(brokers, topic, as_log=True):
        assert offset == expected[partition], (
            f"{partition}: offset {offset} follows {expected[partition] - 1}"
        )
        assert b"\n" not in value, "a message of two lines is no line of a log"
        handles[partition].write(value + b"\n")
        expected[partition] += 1
    for handle in handles.values():
        handle.close()
    return files


def through_the_door(directory: Path) -> Counter[str]:
    """How often the log of a directory has each event that a collector put there."""
    return Counter(
        json.loads(line)["event_id"]
        for file in directory.glob("log-*.ndjson")
        for line in file.open("rb")
        if b'"collector":' in line and b'"event_id":' in line
    )


def against_the_answers(
    answered: Mapping[str, tuple[str, str]],
    stored: Mapping[str, int],
    fields: Callable[[str], Mapping[str, str]],
) -> list[str]:
    """The calls that were answered as stored, but are not in the log, or not counted exactly once.

    Args:
        answered: by the events' ids: placement, and the count that they are in.
        stored: how often the log has each.
        fields: the published fields of a placement.
    """
    found = [f"{key} was answered as stored, and is not in the log" for key in answered if key not in stored]
    rows = {placement: fields(placement) for placement, _ in answered.values()}
    for (placement, count), want in sorted(Counter(answered.values()).items()):
        told = rows[placement].get(f"flight.{count}")
        if told != str(want):
            found.append(f"{placement} {count}: {want} were answered as stored, {told} are counted")
    return found


def letters(brokers: str, topic: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Dead letters by position; they are there once at least, and always say the same.

    Raises:
        AssertionError: two letters of one position differ.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for _, _, value in messages(brokers, topic):
        letter = json.loads(value)
        at = letter["partition"], letter["offset"]
        assert found.setdefault(at, letter) == letter, f"two dead letters of {at}: {found[at]} and {letter}"
    return found


def final_minutes(brokers: str, topic: str, file: Path, before_ms: int) -> list[str]:
    """Write the final minutes before `before_ms` to a file; returns each final minute that changed."""
    wrong, final = [], dict[tuple[str, int], dict[str, Any]]()
    for _, _, value in messages(brokers, topic):
        minute = json.loads(value)
        key = minute["placement_id"], minute["minute_ms"]
        if minute["minute_ms"] >= before_ms:
            continue
        if key in final and minute | {name: final[key][name] for name in ("rev", "as_of_ms")} != final[key]:
            wrong.append(f"minute {key} was final and is given out otherwise: {final[key]} and {minute}")
        if minute["state"] == "final":
            final[key] = minute
    file.write_text("".join(json.dumps(one) + "\n" for one in final.values()))
    return wrong


def against_the_log(
    settings: Settings,
    client: Any,
    brokers: str,
    directory: Path,
    closed_ms: int,
    one_lateness: bool = True,
) -> tuple[int, list[str]]:
    """Every row, account, dead letter and final minute against the oracle's recomputation of the topic.

    Args:
        closed_ms: the minute of the closing pixels, the only one that is not final.
        one_lateness: whether the flow ran with the lateness of the settings all the time: then what is late
            is judged from the log, too; else `BY_LATENESS` is left out.

    Returns:
        How many messages the topic holds, and the differences, one a line.
    """
    files = write_log(brokers, settings.kafka_topic, directory)
    dead = letters(brokers, settings.kafka_rejected_topic)
    numbers = {partition: str(path) for partition, path in files.items()}
    late = [
        (numbers[at], offset + 1, letter["event"]["event"], letter["event"]["ts"])
        for (at, offset), letter in dead.items()
        if letter["reason"] == "too_late"
    ]
    found: list[str] = []
    without: Collection[str] = () if one_lateness else BY_LATENESS
    judgements = (("judged from the log", None), ("as the dead letters say", late))
    for name, too_late in judgements if one_lateness else judgements[1:]:
        truth = recompute(list(files.values()), rules(settings), too_late=too_late, guards_receipts=False)
        for key in [key for key in truth.minutes if key[1] >= closed_ms]:
            del truth.minutes[key]
        found += [
            f"{one} (lateness {name})" for one in differences(truth, client, settings.namespace, without)
        ]
        found += _accounts(truth, client, settings.namespace, numbers)
        found += _rejections(truth, dead, numbers)
        minutes = directory / "minutes.ndjson"
        found += final_minutes(brokers, settings.kafka_minutes_topic, minutes, closed_ms)
        found += [f"{one} (lateness {name})" for one in minute_differences(truth, minutes, without)]
    return truth.totals["received"], found


def _accounts(truth: Recomputation, client: Any, namespace: str, files: Mapping[str, str]) -> Iterator[str]:
    for partition, path in files.items():
        row = client.hgetall(f"{namespace}:partition:{{{partition}}}")
        expected = truth.ledger[path]
        for name in sorted(
            {*expected, *(name for name in row if name in _COUNTS or name.startswith("rejected."))}
        ):
            if int(row.get(name, 0)) != expected.get(name, 0):
                yield f"{partition} {name}: {expected.get(name, 0)} expected, {row.get(name)} published"


_COUNTS: Final = ("received", "accepted", "repeated", "invalid_traffic", "clock_skewed")


def _rejections(
    truth: Recomputation, dead: Mapping[tuple[str, int], Any], files: Mapping[str, str]
) -> Iterator[str]:
    told: dict[tuple[str, str], int] = {}
    for (partition, _), letter in dead.items():
        told[partition, letter["reason"]] = told.get((partition, letter["reason"]), 0) + 1
    for partition, path in files.items():
        counts = truth.ledger[path].items()
        expected = {
            name.removeprefix("rejected."): count for name, count in counts if name.startswith("rejected.")
        }
        for reason in sorted({*expected, *(reason for of, reason in told if of == partition)}):
            want, got = expected.get(reason, 0), told.get((partition, reason), 0)
            if want != got:
                yield f"{partition}: {want} {reason} expected, {got} dead letters"


def undisturbed(settings: Settings, other: Settings, client: Any, brokers: str) -> list[str]:
    """The differences of a flow with the settings `other`, which has read the topic undisturbed."""
    minutes = [
        int(client.hget(f"{one.namespace}:meta", "watermark_ms")) // 60_000 for one in (settings, other)
    ]
    assert minutes[0] == minutes[1], f"the two flows were stopped in different minutes: {minutes}"

    def unlike(what: str, told: Callable[[Settings], Mapping[Any, object]]) -> Iterator[str]:
        here, there = told(settings), told(other)
        for key in sorted(here.keys() | there.keys(), key=str):
            if here.get(key) != there.get(key):
                yield f"{what} {key}: {_short(there.get(key))} undisturbed, {_short(here.get(key))} here"

    return [
        *unlike("row", lambda one: read_fields(client, one.namespace)),
        *unlike("dead letter", lambda one: letters(brokers, one.kafka_rejected_topic)),
        *unlike("decision", lambda one: decisions(brokers, one.kafka_credits_topic)),
        *unlike("sketch", reached),
    ]


def _short(told: object) -> str:
    return repr(told)[:200]


def read_fields(client: Any, namespace: str) -> dict[str, str]:
    """All fields of all rows of all scopes, without those that only state the time and the writer."""
    return {
        f"{scope} {name} {field}": value
        for scope in SCOPES
        for name in client.zrange(f"{namespace}:index:{scope}", 0, -1)
        for field, value in client.hgetall(f"{namespace}:{scope}:{{{name}}}").items()
        if field not in UNLIKE
    }


def decisions(brokers: str, topic: str) -> dict[bytes, bool]:
    """All decisions on conversions; the same one may be there again."""
    return dict.fromkeys((value for _, _, value in messages(brokers, topic)), True)


def reached(settings: Settings) -> dict[tuple[str, str], bytes | frozenset[int]]:
    """The listeners of each row's flight, from the recovery store of a stopped flow: registers, or hashes."""
    assert settings.recovery_dir is not None
    store = SaveStore(settings.recovery_dir)
    newest = store.save(store.cuts()[0])
    found: dict[tuple[str, str], bytes | frozenset[int]] = {}
    for key in (key for step, key in newest.pieces if step == "rows"):
        shard = RowsLogic(settings, True, store.piece(newest, "rows", key))._shard
        distinct = shard.reached
        held: dict[int, set[int]] = {}
        for who, row in distinct.table[distinct.table[:, 0] != 0].tolist():
            held.setdefault(row, set()).add(who)
        for name, number in shard.row_index.numbers.items():
            dense = int(distinct.dense_of[number]) if number < len(distinct.dense_of) else -1
            found[name] = (
                distinct.registers[dense].tobytes() if dense >= 0 else frozenset(held.get(number, ()))
            )
    return found
