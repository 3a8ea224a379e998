"""Delivery reports of AdCP: webhooks that report each media buy at fixed times, and once it is final.

A report is written to disk before it is sent, and stays there until its target has acknowledged it. A repeat
after a kill is therefore the same to the byte, with its `idempotency_key` and `sequence_number`.
https://docs.adcontextprotocol.org/docs/media-buy/media-buys/optimization-reporting
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from connectors.durable import sync_directory
from connectors.kafka import Places, Record
from flows.errors import StateError
from flows.exports.calls import Caller
from flows.exports.handover import Busy, Parcel, Refused, Sorted, reachable
from flows.exports.notices import SignedWebhook, iso
from flows.exports.owned import take_lock

LOOK_S: Final = 5.0
"""The time between two readings of the rows."""
FORMAT: Final = 1
SCHEDULED, DELAYED, FINAL, ADJUSTED = "scheduled", "delayed", "final", "adjusted"
LIVE: Final = "live"
NO_PRICE: Final = "no_price"
TOPIC: Final = "adcp"
"""In a dead letter the topic is this name and the campaign's; the offset is the report's number."""
_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Report(msgspec.Struct):
    """A report that must be sent, or sent again.

    Attributes:
        key: its `idempotency_key`.
        made_ms: its time, in epoch ms.
        body: the whole JSON.
    """

    number: int
    key: str
    made_ms: int
    body: str


class Buy(msgspec.Struct):
    """The account of a media buy's reports to a target.

    Attributes:
        number: the number of the latest report.
        due_ms: the time of the next report.
        final: the digest of the final numbers that were reported; empty before.
        reopened: whether live numbers followed the final ones, since the plan was extended.
        pending: the report that is not acknowledged.
    """

    number: int = 0
    due_ms: int = 0
    final: str = ""
    reopened: bool = False
    pending: Report | None = None

    @property
    def live(self) -> bool:
        """True unless the latest report is final."""
        return self.reopened or not self.final


class State(msgspec.Struct):
    """All media buys by id."""

    format: int = FORMAT
    buys: dict[str, Buy] = {}


class Reports:
    """The state, in a file of an export's take_lock.

    Attributes:
        unsaved: whether the latest state is not on the disk.

    Raises:
        StateError: another process has the file, or it cannot be read.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._path, self.unsaved = directory / f"{name}.reports.json", False
        self._lock = take_lock(directory, name, self._path)
        try:
            self.state = msgspec.json.decode(self._path.read_bytes(), type=State)
        except FileNotFoundError:
            self.state = State()
        except (OSError, msgspec.MsgspecError) as error:
            raise StateError(
                f"{self._path}: cannot be read ({error}): remove the file, or restore it"
            ) from None
        if self.state.format != FORMAT:
            raise StateError(
                f"{self._path} is of format {self.state.format}, this version reads {FORMAT}: remove the "
                "file; reports are then numbered from 1 again"
            )

    def write(self) -> None:
        """Write the state durably.

        Raises:
            Busy: the disk cannot be written.
        """
        new_file, self.unsaved = self._path.with_suffix(".new"), True
        try:
            with open(os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(self.state))
                file.flush()
                os.fsync(file.fileno())
            new_file.replace(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise Busy("state", str(error)) from None
        self.unsaved = False

    def close(self) -> None:
        """Release the file."""
        self._lock.close()


class Source(Protocol):
    """The media buys as the exporter's agent reports them."""

    def names(self) -> Mapping[str, bool]:
        """Media buys that have begun, each with whether its flight is over. Raises ConnectError."""
        ...

    def judged(self, name: str) -> bool:
        """False while the delivery of a media buy cannot be judged."""
        ...

    def delivery(self, name: str) -> Mapping[str, Any]:
        """The answer of `get_media_buy_delivery` for a media buy. Raises ConnectError."""
        ...


@dataclass
class DeliveryReports:
    """Sends a report of each media buy at each multiple of `every`, and one when it is final.

    Later clicks and conversions may change the numbers after the final report. A report then follows at the
    next multiple of `every`. If the flight is extended, reports go on until it is final again.

    Args:
        source: the media buys and their delivery.
        reports: the state.
        form: signs the reports.
        operation: their `operation_id`.
        give_up: the age at which a report without an acknowledgement is a dead letter.
    """

    source: Source
    reports: Reports
    caller: Caller
    form: SignedWebhook
    operation: str
    every: timedelta
    give_up: timedelta
    clock_s: Callable[[], float] = time.time
    most: int = 1
    connections: int = 1
    waiting: bool = False
    looked_s: float = field(default=float("-inf"))
    _refused: list[_Parcel] = field(default_factory=list)

    def sort(self, records: Sequence[Record]) -> Sorted:
        """Make the reports that are due."""
        if time.monotonic() - self.looked_s < LOOK_S:
            return Sorted()
        if self.reports.unsaved:  # a restart must find each report that was sent
            self.reports.write()
        left_out: list[str] = []
        with reachable():
            for name, over in self.source.names().items():
                buy = self.reports.state.buys.setdefault(name, Buy())
                buy.due_ms = min(buy.due_ms, self._next_ms())  # a clock may have been ahead
                awaited = over and buy.live  # the final report is due at once, later changes at `due_ms`
                if buy.pending is None and (awaited or self._now_ms() >= buy.due_ms):
                    left_out += self._look(name, buy, self.source.judged(name))
        self.looked_s = time.monotonic()
        parcels: list[Parcel] = [
            _Parcel(self, name, buy, buy.pending)
            for name, buy in self.reports.state.buys.items()
            if buy.pending is not None
        ]
        return Sorted(parcels, (), left_out)

    def places(self, read: Places) -> Places:
        """The same places, since no topic is read. The dead letters are written, so their reports end. Had
        the process ended before, the reports would be sent again.
        """
        if self._refused:
            for parcel in self._refused:
                parcel.end()
            self._refused.clear()
            with suppress(Busy):  # `sort` writes the state before anything is sent
                self.reports.write()
        return read

    def refuse(self, parcel: _Parcel) -> None:
        """Note a report that becomes a dead letter."""
        self._refused.append(parcel)

    def _look(self, name: str, buy: Buy, judged: bool) -> list[str]:
        """Make the report of a media buy, if one is due. Returns the reasons why a due one was not made."""
        now_ms = self._now_ms()
        answer = self.source.delivery(name)
        if not answer["media_buy_deliveries"]:
            return [NO_PRICE] if now_ms >= buy.due_ms else []
        (delivery,) = answer["media_buy_deliveries"]
        digest = hashlib.sha256(_encode(delivery)).hexdigest()[:16]
        next_ms, live = self._next_ms(), buy.live
        if delivery["is_final"]:
            if digest == buy.final and not live:
                buy.due_ms = next_ms
                return []
            kind = ADJUSTED if buy.final else FINAL
            buy.final, buy.reopened = digest, False
        elif now_ms < buy.due_ms:
            return []
        else:
            kind = SCHEDULED if judged else DELAYED
            buy.reopened = bool(buy.final)
        buy.due_ms = next_ms
        buy.number += 1
        buy.pending = self._report(buy, kind, answer, now_ms, replaces=live and not buy.live)
        self.reports.write()
        return []

    def _now_ms(self) -> int:
        return int(self.clock_s() * 1000)

    def _next_ms(self) -> int:
        """The next time at which reports are due."""
        now_ms, every_ms = self._now_ms(), int(self.every.total_seconds() * 1000)
        return now_ms - now_ms % every_ms + every_ms

    def _report(self, buy: Buy, kind: str, answer: Mapping[str, Any], now_ms: int, replaces: bool) -> Report:
        """The report in AdCP's envelope, without totals over media buys.

        Args:
            replaces: whether its final numbers replace live ones.
        """
        result = {name: part for name, part in answer.items() if name not in ("aggregated_totals", "errors")}
        (delivery,) = answer["media_buy_deliveries"]
        if kind == DELAYED:
            result |= {"partial_data": True, "unavailable_count": 1}
            delivery = {**delivery, "status": "reporting_delayed"}
        if replaces:
            packages = [{**one, "supersedes_window": LIVE} for one in delivery["by_package"]]
            delivery = {**delivery, "by_package": packages}
        result |= {"notification_type": kind, "sequence_number": buy.number}
        if not delivery["is_final"]:
            result["next_expected_at"] = iso(buy.due_ms)
        key = f"whk_{uuid.uuid4().hex}"
        body = {
            "idempotency_key": key,
            "operation_id": self.operation,
            "task_id": f"delivery:{delivery['media_buy_id']}",
            "task_type": "media_buy_delivery",
            "protocol": "media-buy",
            "status": "completed",
            "timestamp": iso(now_ms),
            "result": result | {"media_buy_deliveries": [delivery]},
        }
        return Report(buy.number, key, now_ms, _encode(body).decode())


@dataclass
class _Parcel:
    """A report on its way to the target."""

    target: DeliveryReports
    name: str
    buy: Buy
    report: Report

    @property
    def records(self) -> Sequence[Record]:
        topic = f"{TOPIC}/{self.name}"
        return [Record(topic, 0, self.report.number, self.report.made_ms, self.report.key.encode(), b"")]

    def hand_over(self) -> None:
        body = self.report.body.encode()
        try:
            self.target.caller.post(body, self.target.form.headers(self.report.key, body))
        except Refused:
            self.target.refuse(self)
            raise
        except Busy:
            if self.target.clock_s() - self.report.made_ms / 1000 > self.target.give_up.total_seconds():
                self.target.refuse(self)  # the loop makes it a dead letter
            raise
        self.end()
        self.target.reports.write()

    def end(self) -> None:
        """Remove the report, so that the next one can be made."""
        if self.buy.pending is self.report:
            self.buy.pending = None
