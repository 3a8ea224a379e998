"""The proof of an erasure: `audiopixel forget` reads from Redis whether the flow has erased a person.

The flow reads the deny-list (`flows.intake.erasure`). It publishes the state that it had of each key, and the
cut after which it has none (`flows.publish.erased`). `meta` has the sum of the keys that every partition
removes from its pixels. If this is the sum of the list, the whole list is done, even if Redis has lost the
accounts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

import msgspec

from connectors.redis import Client, read_rows, server_clock
from flows.errors import UNREADABLE, AudiopixelError
from flows.model.messages import ERASED
from flows.model.redis_keys import archive_key, collector_keys_key, deny_key, erased_field, erased_key
from flows.model.ticks import DAY_MS, sum_of
from flows.settings import Settings
from flows.shown import shown

ALIVE_MS: Final = 30_000
"""The age of the flow's last write above which no flow is alive. A flow writes twice a second."""
POLL_S: Final = 0.25
MEMORY_MS: Final = 62 * DAY_MS
"""The time for which a key of the edge is still required after collectors have dropped it: by default people
are remembered no longer.
"""
OWN_ID: Final = "as given"
"""The text in place of the pseudonym if the person's own id was given, which a receipt must not have."""
WORDS: Final = {
    "touches": "touches",
    "campaigns": "campaigns",
    "conversions": "waiting conversions",
    "household_touches": "household touches",
}
"""The kinds of `ERASED` for people."""
assert WORDS.keys() == set(ERASED)

State = Literal["done", "pending", "refused"]


class PersonName(msgspec.Struct, frozen=True):
    """A name of a person on the deny-list.

    Attributes:
        kind: `listener_id`, `client_id` or `household_id`.
        pseudonym: the shortened pseudonym, or `OWN_ID`.
        key: its keyed hash, as the list has it.
    """

    kind: str
    pseudonym: str
    key: str


class Erasure(msgspec.Struct, frozen=True):
    """The state of the erasure of one name.

    Attributes:
        erased_at: the time of the erasure; None, as `cut` and `found`, if Redis has no account of it.
        cut: the name of the cut.
        found: the state that the flow had, by `ERASED`.
    """

    name: PersonName
    state: State
    erased_at: str | None = None
    cut: str | None = None
    found: dict[str, int] | None = None


class UnreachedPlace(msgspec.Struct, frozen=True):
    """A place that an erasure does not reach.

    Attributes:
        until: the end of its stay there, in words.
        at_latest: the same as a time, if it is known.
    """

    where: str
    until: str
    at_latest: str | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt, as a file of JSON. Pseudonyms are shortened, and keys are keyed hashes, so that a receipt
    identifies no person.

    Attributes:
        not_complete: the reasons for which the state is not `done`.
        listener_key: the fingerprint of the listeners' key by which the names were hashed.
        edge_keys: ids of the edge's keys by which pseudonyms were made; None if no listener's id was given.
        cuts: for each cut by which something was erased, its time and the flow's positions.
    """

    audiopixel_forget: Literal[1] = 1
    state: State
    not_complete: list[str]
    asked_at: str
    checked_at: str
    namespace: str
    listeners: int
    households: int
    listener_key: str
    edge_keys: list[str] | None
    names: list[Erasure]
    cuts: dict[str, dict[str, Any]]
    not_reached: list[UnreachedPlace]


class Flow(NamedTuple):
    """The flow's present state by Redis.

    Attributes:
        listener_key: the fingerprint of its listeners' key; empty if no flow has written.
        age_ms: the age of its last write, by Redis's clock; None if it has written nothing.
        edge_keys: ids of the keys that collectors had in force within `MEMORY_MS`.
    """

    listener_key: str
    age_ms: int | None
    edge_keys: frozenset[str]

    @property
    def alive(self) -> bool:
        """True if the flow has written within `ALIVE_MS`."""
        return self.age_ms is not None and self.age_ms <= ALIVE_MS


def flow_of(client: Client, namespace: str) -> Flow:
    """The flow's present state.

    Raises:
        ConnectError: Redis does not answer.
    """
    meta_key = f"{namespace}:meta"
    now_ms, flushed = server_clock(client, meta_key, "flushed_ms")
    meta, keys = read_rows(client, [meta_key, collector_keys_key(namespace)])
    return Flow(
        listener_key=meta.get("listener_key", ""),
        age_ms=max(0, now_ms - int(flushed)) if flushed and flushed.isdigit() else None,
        edge_keys=frozenset(
            name
            for name, written_ms in keys.items()
            if written_ms.isdigit() and int(written_ms) > now_ms - MEMORY_MS
        ),
    )


@dataclass
class Case:
    """The names of people who must be forgotten, and the keys by which the names were made.

    Args:
        listener_key, edge_keys: see `Receipt`.
    """

    settings: Settings
    listener_key: str
    edge_keys: Sequence[str] | None
    names: Sequence[PersonName]
    listeners: int
    households: int
    asked_at: str = field(default_factory=lambda: moment(time.time() * 1000))

    @classmethod
    def of_receipt(cls, settings: Settings, text: bytes) -> Case:
        """The case of a receipt.

        Raises:
            AudiopixelError: the text is no receipt, or is one of another flow.
        """
        try:
            receipt = msgspec.json.decode(text, type=Receipt)
        except UNREADABLE as error:
            raise AudiopixelError(f"is no receipt of audiopixel forget: {shown(str(error))}") from None
        if receipt.namespace != settings.namespace:
            raise AudiopixelError(
                f"is of {shown(receipt.namespace)}, and AUDIOPIXEL_NAMESPACE is {settings.namespace}"
            )
        names, asked_at = [erasure.name for erasure in receipt.names], receipt.asked_at
        return cls(
            settings,
            receipt.listener_key,
            receipt.edge_keys,
            names,
            receipt.listeners,
            receipt.households,
            asked_at,
        )

    @property
    def people(self) -> str:
        """The number of people, in words."""
        counts = (_counted(self.listeners, "listener"), _counted(self.households, "household"))
        return " and ".join(filter(None, counts))

    def refusal(self, flow: Flow) -> str:
        """The reason for which the flow cannot find the names; empty if its key has hashed them."""
        namespace = self.settings.namespace
        if not flow.listener_key:
            return (
                f"{namespace}:meta in Redis does not name the key with which its flow hashes listeners. "
                "Nothing is forgotten: start the flow (audiopixel run), or set AUDIOPIXEL_REDIS_URL and "
                "AUDIOPIXEL_NAMESPACE as it has them"
            )
        if self.listener_key != flow.listener_key:
            return (
                f"AUDIOPIXEL_LISTENER_KEY is not the key of the flow of {namespace}. Nothing is forgotten: "
                "set it as audiopixel run has it, in its environment or its audiopixel.toml"
            )
        return ""

    def missing_keys(self, flow: Flow) -> str:
        """The reason for which there may be further pseudonyms; empty if the names are complete."""
        if self.edge_keys is None or not (missing := flow.edge_keys - set(self.edge_keys)):
            return ""
        keys, ids = _counted(len(missing), "key"), ", ".join(sorted(map(shown, missing)))
        return (
            f"collectors have made pseudonyms by {keys} unknown here ({ids}): set AUDIOPIXEL_COLLECT_KEY and "
            "AUDIOPIXEL_COLLECT_PREVIOUS_KEYS as the collectors have them, and run it again"
        )

    def wait(self, client: Client, wait_s: float) -> tuple[list[Erasure], list[str]]:
        """Wait until all names are done, no flow is alive, or `wait_s` seconds are over. Returns the state of
        each name, and the reasons for which the case is not done.

        Raises:
            ConnectError: Redis does not answer.
        """
        until_s = time.monotonic() + wait_s
        while True:
            erasures, flow = self.erasures(client), flow_of(client, self.settings.namespace)
            pending = any(erasure.state == "pending" for erasure in erasures)
            if not pending or not flow.alive or time.monotonic() >= until_s:
                break
            time.sleep(POLL_S)
        reasons = [self.missing_keys(flow)]
        if pending and not flow.alive:
            age_s = None if flow.age_ms is None else flow.age_ms // 1000
            since = "has ever written" if age_s is None else f"is alive: the last write was {age_s:,} s ago"
            reasons.append(f"no flow {since}. A flow that starts reads the list before any pixel")
        elif pending:
            reasons.append(f"the flow has not confirmed it within {wait_s:g} s: ask again with --status")
        if absent := sum(erasure.state == "refused" for erasure in erasures):
            reasons.append(
                f"{absent} of {len(erasures)} names are not on the deny-list: run audiopixel forget for them"
            )
        if unreadable := _unreadable_archive_objects(client, self.settings.namespace):
            reasons.append(
                f"the archive has {_counted(unreadable, 'object')} that cannot be read, and nobody is "
                "removed from them: audiopixel archive check names them"
            )
        return erasures, [*filter(None, reasons)]

    def erasures(self, client: Client) -> list[Erasure]:
        """The present state of each name.

        Raises:
            ConnectError: Redis does not answer.
        """
        if not (fields := [name.key for name in self.names]):
            return []
        namespace = self.settings.namespace
        (listed,) = read_rows(client, [deny_key(namespace)], fields)
        (account_texts,) = read_rows(client, [erased_key(namespace)], fields)
        accounts = {name: _account_of(text) for name, text in account_texts.items()}
        whole = all(accounts.get(field) for field in fields) or _is_whole(client, namespace)
        erasures = []
        for name in self.names:
            account = accounts.get(name.key)
            if name.key not in listed:
                erasures.append(Erasure(name, "refused"))
            elif account is not None:
                erasures.append(Erasure(name, "done", moment(account.at_ms), account.cut, account.found))
            else:
                erasures.append(Erasure(name, "done" if whole else "pending"))
        return erasures

    def receipt(
        self, client: Client, erasures: Sequence[Erasure], reasons: Sequence[str], retention: timedelta | None
    ) -> Receipt:
        """The receipt of the case.

        Args:
            retention: see `unreached`.

        Raises:
            ConnectError: Redis does not answer.
        """
        names = sorted({erasure.cut for erasure in erasures if erasure.cut})
        (cut_texts,) = read_rows(client, [erased_key(self.settings.namespace)], names) if names else [{}]
        cuts = {name: _cut_of(text) for name, text in cut_texts.items()}
        return Receipt(
            state=state_of(erasures, reasons),
            not_complete=[*reasons],
            asked_at=self.asked_at,
            checked_at=moment(time.time() * 1000),
            namespace=self.settings.namespace,
            listeners=self.listeners,
            households=self.households,
            listener_key=self.listener_key,
            edge_keys=None if self.edge_keys is None else [*self.edge_keys],
            names=[*erasures],
            cuts={name: {"at": moment(cut.at_ms), "positions": cut.positions} for name, cut in cuts.items()},
            not_reached=unreached(self.settings, retention),
        )


def _unreadable_archive_objects(client: Client, namespace: str) -> int:
    """The number that the archive's writer has published; 0 without an archive."""
    (row,) = read_rows(client, [archive_key(namespace)], ["unreadable"])
    count = row.get("unreadable", "0")
    return int(count) if count.isdecimal() else 0


def state_of(erasures: Sequence[Erasure], reasons: Sequence[str]) -> State:
    """The state of a whole case."""
    states = {erasure.state for erasure in erasures}
    if not states or "refused" in states:
        return "refused"
    return "pending" if "pending" in states or reasons else "done"


def state_words(erasures: Sequence[Erasure]) -> str:
    """The sums of the state that the flow had, in words."""
    account_counts = [erasure.found for erasure in erasures if erasure.found is not None]
    if not account_counts:
        return "what the flow held is not known any more"
    sums = {kind: sum(counts.get(kind, 0) for counts in account_counts) for kind in ERASED}
    return "the flow held " + ", ".join(f"{WORDS[kind]} {sums[kind]:,}" for kind in ERASED)


class _Account(msgspec.Struct):
    cut: str
    at_ms: int
    found: dict[str, int]


class _Cut(msgspec.Struct):
    at_ms: int
    positions: dict[str, int] = {}


def _account_of(text: str) -> _Account | None:
    """The flow's account; None if it is damaged."""
    try:
        return msgspec.json.decode(text, type=_Account)
    except UNREADABLE:
        return None


def _cut_of(text: str) -> _Cut:
    try:
        return msgspec.json.decode(text, type=_Cut)
    except UNREADABLE as error:
        raise AudiopixelError(f"an account of erasures in Redis is damaged: {shown(str(error))}") from None


def _is_whole(client: Client, namespace: str) -> bool:
    """True if every partition removes all keys of the deny-list from its pixels."""
    # Read the list first: later additions make the sums differ.
    (listed,) = read_rows(client, [deny_key(namespace)])
    (meta,) = read_rows(client, [f"{namespace}:meta"], ["forgotten_sum"])
    keys = set[int]()
    for hashed_key in listed:
        try:
            keys.add(int(hashed_key, 16))
        except ValueError:  # another program's
            continue
    return meta.get("forgotten_sum") == erased_field(sum_of(keys))


def unreached(settings: Settings, retention: timedelta | None = None) -> list[UnreachedPlace]:
    """The places that an erasure does not reach.

    Args:
        retention: the longest time for which the pixel topic keeps a message; None if unknown or unlimited.
    """
    topic = (
        "as long as Kafka keeps it"
        if retention is None
        else f"{_long(retention)} at most, by the topic's settings"
    )
    clients = timedelta(hours=25)
    return [
        UnreachedPlace(f"topic {settings.kafka_topic}: messages with pseudonyms", topic, _later(retention)),
        UnreachedPlace("spools of collectors: pseudonyms", "until Kafka has them"),
        UnreachedPlace(
            "the flow's reach: keyed hashes and sketches",
            f"{_long(settings.row_memory)} after a row's last pixel, of planned rows as long as the plan is "
            "listed",
        ),
        UnreachedPlace(
            "the flow's clients: keyed hashes of device and content",
            f"{_long(clients)} behind the watermark",
            _later(clients),
        ),
        UnreachedPlace(
            "the flow's saves from before", "until the second save; backups until you delete them"
        ),
        UnreachedPlace(
            "decisions on conversions: an order's id, no listener",
            f"in Redis {_long(settings.decisions_ttl)}; in topic {settings.kafka_credits_topic} as long as "
            "Kafka keeps it",
        ),
        UnreachedPlace(
            "Google and Adobe Analytics, where audiopixel export sends to them: what was sent before",
            "until you have them erase it; the export's own state of conversions 4 days",
        ),
        UnreachedPlace(
            "the archive, where one is written: lines with pseudonyms",
            "a day at most, while audiopixel archive runs",
            _later(timedelta(days=1)),
        ),
        UnreachedPlace(
            "copies of the topic: mirrors, backups, copies of the archive", "until you delete them"
        ),
    ]


def _later(span: timedelta | None) -> str | None:
    return None if span is None else moment((time.time() + span.total_seconds()) * 1000)


def _long(span: timedelta) -> str:
    hours = round(span / timedelta(hours=1), 1)
    return f"{hours / 24:g} days" if hours >= 48 and hours % 24 == 0 else f"{hours:g} hours"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}" if count else ""


def moment(at_ms: float) -> str:
    """A time in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
