"""Files and topics that people and other systems hand over: plans, counts, dead letters, saves, ids.

Of each: it is read, or refused in words by an error of ours, and what is told of it is shown as letters.
"""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from connectors.files import FileInput
from connectors.kafka import Change
from connectors.stream import ConnectError, EndOfInput
from flows.cli.explain import edge_pseudonyms
from flows.delivery.plan_columns import COLUMNS, plan_from_json, plan_to_json
from flows.delivery.plan_files import parse_plans
from flows.delivery.plan_topics import Entries
from flows.engine import ALONE
from flows.engine.meeting import agree, run_alone
from flows.errors import AudiopixelError, PlanError, UsageError
from flows.model.client_counts import WINDOWS
from flows.model.plan import Plan
from flows.reconcile.decode import Reader
from flows.reconcile.rules import PODCAST_APPS
from flows.rejected import Groups, compare, from_files
from flows.resend import Resender, ResendResult
from flows.settings import load
from flows.shown import LINE, shown
from flows.state.people import People
from flows.state.save_accounts import accounts
from flows.state.saves import FORMAT, Manifest, SaveStore, Unwritten, encode
from flows.waterfall.publisher_counts import COLUMNS as CLAIMED
from flows.waterfall.publisher_counts import read_claims
from fuzz.corpus import NAMES, T0_MS, conversions, pixels
from fuzz.mutate import damaged, document, packed, raw_of, word
from fuzz.run import Input

PLAN: Final = {
    "placement_id": "breakfast-uk", "booked": 1000, "start": "2026-11-01T00:00", "end": "2026-12-01T00:00",
    "timezone": "Europe/London", "campaign_id": "spring", "advertiser": "acme", "cpm": 12.5,
    "currency": "GBP", "target_completion_rate": 0.9, "tolerance": 0.1, "curve": "even",
    "pauses": "2026-11-05T00:00/2026-11-06T00:00", "blocked_categories": "IAB7-39",
    "platforms": "web;app", "stations": "one", "podcasts": "pod", "programs": "a;b;c", "creatives": "spot",
}  # fmt: skip
CLAIM: Final = {
    "placement_id": "breakfast-uk", "day": "2026-11-25", "impressions": 1000, "excludes": "invalid_traffic",
    "basis": "audible_2s",
}  # fmt: skip


def table(good: dict[str, Any], names: Sequence[str], rng: Random) -> bytes:
    """A CSV file with hostile cells."""
    out = io.StringIO()
    header = (
        [*good] if rng.random() < 0.8 else [rng.choice((*names, word(rng))) for _ in range(rng.randint(0, 9))]
    )
    writer = csv.writer(out, lineterminator=rng.choice(("\n", "\r\n")))
    writer.writerow(header)
    for number in range(rng.randint(0, 3)):
        row = good | {"placement_id": f"p-{number}"}
        cells = [word(rng) if rng.random() < 0.15 else str(row.get(name, "")) for name in header]
        writer.writerow(cells if rng.random() < 0.95 else cells[1:])
    return _file(raw_of(out.getvalue()), rng)


def array(good: dict[str, Any], names: tuple[str, ...], rng: Random) -> bytes:
    """A JSON file: a list of objects."""
    rows = [
        document(good | {"placement_id": f"p-{number}"}, names, rng) for number in range(rng.randint(0, 3))
    ]
    return _file(b"[" + b",\n".join(rows) + b"]", rng)


def _file(body: bytes, rng: Random) -> bytes:
    dice = rng.random()
    if dice < 0.1:
        return damaged(body, rng)
    if dice < 0.13:
        return packed(body, rng)
    return b"\xef\xbb\xbf" + body if dice < 0.16 else body


def in_words(told: object) -> str:
    """The words of a refusal, which a terminal must be able to show."""
    words = shown(str(told), LINE)
    assert words.isprintable(), words
    return words


class _Files(ABC):
    """A door to which each input comes as a file, whose suffix is its first part."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        outcomes = Counter[str]()
        for one in inputs:
            suffix, body = (*one, b"", b"")[:2]
            path = self.directory / f"file{suffix.decode(errors='replace')[:8].replace('/', '')}".replace(
                "\0", ""
            )
            path.write_bytes(body)
            outcomes[self.read(path, body)] += 1
        return outcomes

    @abstractmethod
    def read(self, path: Path, body: bytes) -> str:
        """Read one file; the outcome."""

    def close(self) -> None:  # noqa: B027 (most doors hold nothing open)
        """Nothing is open."""


class PlansDoor(_Files):
    """Files of plans; and messages of a topic of plans."""

    def make(self, rng: Random) -> Input:
        dice = rng.random()
        if dice < 0.35:
            return b".csv", table(PLAN, COLUMNS, rng)
        if dice < 0.65:
            return b".json", array(PLAN, COLUMNS, rng)
        key = b"breakfast-uk" if rng.random() < 0.7 else raw_of(word(rng))
        return b".topic", key + b"\n" + document(PLAN, COLUMNS, rng)

    def read(self, path: Path, body: bytes) -> str:
        if path.suffix == ".topic":
            key, _, value = body.partition(b"\n")
            entries = Entries("plans")
            remarks = entries.take(Change(0, 0, T0_MS, key, value))
            self._judge(list(entries.book().values()))
            for remark in remarks:
                in_words(remark)
            return "taken" if entries.book() else "refused"
        try:
            book, problems = parse_plans(body, path)
        except PlanError as error:
            in_words(error)
            return "refused"
        for problem in problems:
            in_words(problem)
        self._judge(list(book.values()))
        return "taken" if book and not problems else "in part"

    def _judge(self, plans: Sequence[Plan]) -> None:
        for plan in plans:
            try:
                assert plan_from_json(plan_to_json(plan)) == plan
            except PlanError as error:
                in_words(error)


class ClaimsDoor(_Files):
    """Others' counts, for `audiopixel discrepancy`."""

    def make(self, rng: Random) -> Input:
        good = (
            CLAIM
            if rng.random() < 0.6
            else {"campaign_id": "spring", "day": "flight", "downloads": 7, "window": WINDOWS[0]}
        )
        dice = rng.random()
        if dice < 0.45:
            return b".csv", table(good, CLAIMED, rng)
        return (
            (b".json", array(good, CLAIMED, rng)) if dice < 0.97 else (b".parquet", damaged(b"PAR1" * 9, rng))
        )

    def read(self, path: Path, body: bytes) -> str:
        try:
            claims = read_claims(path)
        except UsageError as error:
            in_words(error)
            return "refused"
        for claim in claims:
            claim.name.encode()  # it is asked for in Redis
            assert 0 <= claim.number <= 10**12, claim
        return "taken"


class LettersDoor(_Files):
    """Files of dead letters, for `audiopixel rejected`, to be listed, looked up and sent again."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        settings = load(collect_key="a key of a test, 16 bytes or more")
        self._resender = Resender(settings, T0_MS, 600_000, T0_MS, {"platform": "x"}, unsigned=True)

    def make(self, rng: Random) -> Input:
        event = rng.choice((*pixels(), *conversions()))
        letter = {
            "reason": "invalid",
            "position": f"t/0/{rng.randrange(99)}",
            "field": "ts",
            "sender": "token/x",
        }
        names = ("reason", "position", "field", "sender", "partition", "event", "sha256", "length")
        lines = [document(letter | {"event": event}, names, rng), document(event, NAMES, rng)]
        lines.append(json.dumps(letter).encode()[:-1] + b',"event":' + document(event, NAMES, rng) + b"}")
        return b".ndjson", _file(b"\n".join(lines), rng)

    def read(self, path: Path, body: bytes) -> str:
        try:
            letters = list(from_files([str(path)]))
        except (AudiopixelError, ConnectError) as error:
            in_words(error)
            return "refused"
        groups, result = Groups(), ResendResult()
        for letter in letters:
            groups.take(letter)
        assert groups.letters.total() == len(letters)
        groups.table(50)
        self._resender.result = result
        lines = [*self._resender.lines(letters)]
        assert all(isinstance(json.loads(line.body)["event_id"], str) for line in lines)
        assert len(lines) + result.refused.total() + result.not_sent.total() == len(letters)
        found = compare([str(path)], letters)
        assert 0 <= found.counts.total() <= found.lines
        found.table()
        return "letters" if letters else "none"


class LogFilesDoor(_Files):
    """Logs as files, plain and packed, whole and cut off: the flow and the oracle read the same lines."""

    def make(self, rng: Random) -> Input:
        lines = [document(rng.choice(pixels()), NAMES, rng) for _ in range(rng.randint(0, 3))]
        body = rng.choice((b"\n", b"\n", b"\r\n", b"\n\n")).join(lines) + rng.choice((b"", b"\n", b"\0"))
        return (
            (b".gz", packed(body, rng))
            if rng.random() < 0.4
            else (rng.choice((b".ndjson", b".zst")), _file(body, rng))
        )

    def read(self, path: Path, body: bytes) -> str:
        try:
            reader = FileInput([str(path)]).open(str(path), None)
            values: list[bytes] = []
            try:
                while True:
                    if (messages := reader.read(1_000)) is not None:
                        values += messages.values
            except EndOfInput:
                pass
            finally:
                reader.close()
            ours: int | None = len(values)
        except ConnectError as error:
            in_words(error)
            ours = None
        oracle = Reader(False, PODCAST_APPS)
        try:
            for _ in oracle.read(0, path):
                pass
            theirs: int | None = oracle.received[0] + oracle.marks[0]
        except AudiopixelError as error:
            in_words(error)
            theirs = None
        # One of them may read less of a file without its end: both report the fault.
        assert ours == theirs or (ours is None and _compressed_by_content(body)), (ours, theirs)
        return "refused" if ours is None else "read"


def _compressed_by_content(body: bytes) -> bool:
    """True if the flow refuses a file by its name, which the oracle leaves to the flow."""
    return body[:2] == b"\x1f\x8b" or body[:4] == b"\x28\xb5\x2f\xfd"


class SavesDoor:
    """A recovery directory of which a file is damaged: `audiopixel state`, and a start."""

    def __init__(self, directory: Path) -> None:
        self._store = store = SaveStore(directory / "recovery")
        for cut in (7, 9):
            some = [Unwritten("plays", key, encode([cut, "x"]), []) for key in ("0000", "0001", "0002")]
            # A large save has its pieces in several files.
            pieces = [*store.put_pieces(cut, some[:2]), *store.put_pieces(cut, some[2:])]
            shards = (tuple(f"{piece.step}-{piece.key}" for piece in pieces),)
            told = FORMAT, cut, 60_000, {"a/0": 5}, 1000 * cut, 1
            store.commit(Manifest(*told, {}, pieces, shards=shards))
        self._whole = {path: path.read_bytes() for path in sorted(store.root.rglob("*")) if path.is_file()}

    def make(self, rng: Random) -> Input:
        number = rng.randrange(len(self._whole))
        return str(number).encode(), damaged([*self._whole.values()][number], rng)

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        return Counter(self._one(int(number or b"0"), body) for number, body in inputs)

    def _one(self, number: int, body: bytes) -> str:
        store, path = self._store, [*self._whole][number]
        path.write_bytes(body)
        whole, cut = self._whole[path] == body, int(path.parent.name)
        for account in accounts(store):
            in_words(account.damage)
            assert account.damage or whole or account.cut != cut, "damage is not seen"
        taken = run_alone(agree(store, ALONE)).save
        assert taken is not None
        assert whole or taken.cut != cut, "a damaged save is taken"
        for step, key in taken.pieces:
            assert store.piece(taken, step, key) == (taken.cut, "x")
        for each, before in self._whole.items():
            if not each.exists() or each == path:
                each.write_bytes(before)
        return "whole" if whole else "the other is taken"

    def close(self) -> None:
        """Nothing is open."""


class PeopleDoor:
    """Ids on `audiopixel forget`'s standard input."""

    def __init__(self, _: Path) -> None:
        self._settings = load(
            collect_key="a key of the edge, 32 bytes long", listener_key="a key of sixteen bytes"
        )
        self._hashed = People(b"a key of sixteen bytes")

    def make(self, rng: Random) -> Input:
        return raw_of(word(rng)), raw_of(word(rng))

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        outcomes = Counter[str]()
        for one in inputs:
            known, agent = (part.decode(errors="surrogateescape") for part in (*one, b"", b"")[:2])
            made = edge_pseudonyms(self._settings, known, agent)
            for _, pseudonym in made:
                self._hashed.listener(pseudonym.encode())
            self._hashed.listener(known.encode(errors="surrogateescape"))
            outcomes["known to the edge" if made else "an id alone"] += 1
        return outcomes

    def close(self) -> None:
        """Nothing is open."""
