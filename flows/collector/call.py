"""The collector's own types: a call as it came, and the events that the collector makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from flows.collector.laps import UNTIMED, Laps


@dataclass(slots=True)  # `frozen` would triple the time of making one
class Call:
    """An HTTP call as it came.

    Attributes:
        path, query: still encoded; the query without its question mark.
        headers: by lower-case name.
        peer: the transport's address.
        received_ms: by the collector's own clock.
        laps: times the stages of a single pixel.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    peer: str
    received_ms: int
    laps: Laps = UNTIMED


class Claimant(NamedTuple):
    """A caller that names another device and has no right to.

    Attributes:
        network: /24 or /48 of the caller's address.
        agent: the name in front of the caller's user agent.
        device_from: the place of the device's address in its calls, as the setting `collect_servers` names
            it.
    """

    network: str
    agent: str
    device_from: str


UNKNOWN_SENDER: Final = "unknown"
"""The sender of a call that was refused before its sender was read."""


class Outcome(StrEnum):
    """The outcome of one event of a call.

    `STORED`: it counts. `REJECTED`: it is no pixel, and its dead letter has the reason. `NOT_COUNTED`: the
    IAB's rules leave it out, such as a prefetch.
    """

    STORED = "stored"
    REJECTED = "rejected"
    NOT_COUNTED = "not_counted"


@dataclass(slots=True)
class Understood:
    """An event of a call: a canonical event with its Kafka key, or the reason why there is none.

    Attributes:
        reason, wrong: the reason why it is rejected or not counted, and the field.
        consent: the reason of the decision on consent.
        unreplaced: whether the call had an unreplaced macro.
        unreadable: of a source's message, the values that cannot be read, by field.
        event: the canonical event, without `collector` and `low_ms`, which the store adds; empty if
            there is none.
        key: of the Kafka message: play, else listener, else event id; of a conversion order, else event id.
        sender: the caller: `token/NAME`, `network/NET`, or for an unknown caller `dialect/NAME`.
        keeps_play: whether the play's id does not identify its listener.
        trace: the steps by which the event was made, as the checker shows them; None without `trace`.
        laps: the stopwatch of its call.
        claimant: the caller, if it names another device and has no right to; else None.
    """

    outcome: Outcome
    reason: str = ""
    wrong: str = ""
    event: dict[str, Any] = field(default_factory=dict)
    key: bytes = b""
    consent: str = ""
    unreplaced: bool = False
    unreadable: Mapping[str, Any] = field(default_factory=dict)
    sender: str = UNKNOWN_SENDER
    keeps_play: bool = False
    trace: dict[str, Any] | None = None
    laps: Laps = UNTIMED
    claimant: Claimant | None = None
