"""Delivery reports of AdCP: webhooks that report each media buy at fixed times, and once it is final.

A report is written to disk before it is sent, and stays there until its target has taken it. A repeat is
therefore the same to the byte, with its `idempotency_key` and `sequence_number`, after any kill in between.
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
from flows.exports.owned import own

LOOK_S: Final = 5.0
"""Time between two looks at the rows."""
FORMAT: Final = 1
SCHEDULED, DELAYED, FINAL, ADJUSTED = "scheduled", "delayed", "final", "adjusted"
LIVE: Final = "live"
NO_PRICE: Final = "no_price"
TOPIC: Final = "adcp"
"""The name that stands for a topic in the dead letters, before the campaign's; the offset is the report's."""
_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Report(msgspec.Struct):
    """A report that must be sent, or sent again.

    Attributes:
        body: the whole JSON.
    """

    number: int
    key: str
    made_ms: int
    body: str


class Buy(msgspec.Struct):
    """The account of a media buy's reports to a target.

    Attributes:
        number: of the latest report.
        due_ms: when the next is due.
        final: digest of the final numbers that were reported; empty before.
        reopened: whether live numbers followed the final ones, as of a plan that was extended.
        pending: the report that is under way.
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
    """The state, in a file of an export's own.

    Attributes:
        unsaved: whether the disk has not taken the latest state yet.

    Raises:
        StateError: another process has it, or it cannot be read.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._path, self.unsaved = directory / f"{name}.reports.json", False
        self._lock = own(directory, name, self._path)
        try:
            self.state = msgspec.json.decode(self._path.read_bytes(), type=State)
        except FileNotFoundError:
            self.state = State()
        except (OSError, msgspec.MsgspecError) as error:
            raise StateError(f"{self._path}: cannot be read ({error}): take it away, or restore it") from None
        if self.state.format != FORMAT:
            raise StateError(
                f"{self._path} is of format {self.state.format}, this version reads {FORMAT}: take it away; "
                "reports are then numbered from 1 again"
            )

    def keep(self) -> None:
        """Write the state; safe on return.

        Raises:
            Busy: the disk does not take it.
        """
        fresh, self.unsaved = self._path.with_suffix(".new"), True
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(self.state))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
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
        """Media buys that have begun, and whether their flight is over. Raises ConnectError."""
        ...

    def judged(self, name: str) -> bool:
        """False while the delivery of one cannot be judged."""
        ...

    def delivery(self, name: str) -> Mapping[str, Any]:
        """The answer of `get_media_buy_delivery` for one. Raises ConnectError."""
        ...


@dataclass
class DeliveryReports:
    """Reports of each media buy: one every `every`, and one when it is final.

    After the final one a report follows at most every `every`, if its numbers have changed: clicks and
    conversions come for longer than its impressions. If its flight is extended, reports go on until it is
    final again.

    Args:
        give_up: the age from which a report that is not taken is a dead letter.
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
        if self.reports.unsaved:  # nothing is sent that a restart would not find
            self.reports.keep()
        left_out: list[str] = []
        with reachable():
            for name, over in self.source.names().items():
                buy = self.reports.state.buys.setdefault(name, Buy())
                buy.due_ms = min(buy.due_ms, self._next_ms())  # a clock may have been ahead
                awaited = over and buy.live  # at once; later changes at their next time
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
        """The same places, since no topic is read. Reports that are dead letters are over from here on. A
        process that ended before has not written their letters, so they are sent again.
        """
        if self._refused:
            for parcel in self._refused:
                parcel.end()
            self._refused.clear()
            with suppress(Busy):  # tried again before anything is sent
                self.reports.keep()
        return read

    def refuse(self, parcel: _Parcel) -> None:
        """Note a report that becomes a dead letter."""
        self._refused.append(parcel)

    def _look(self, name: str, buy: Buy, judged: bool) -> list[str]:
        """Make the due report of a media buy, if any; returns the reason why there is none."""
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
        self.reports.keep()
        return []

    def _now_ms(self) -> int:
        return int(self.clock_s() * 1000)

    def _next_ms(self) -> int:
        """The next time at which reports are due."""
        now_ms, every_ms = self._now_ms(), int(self.every.total_seconds() * 1000)
        return now_ms - now_ms % every_ms + every_ms

    def _report(self, buy: Buy, kind: str, answer: Mapping[str, Any], now_ms: int, replaces: bool) -> Report:
        """The report in AdCP's envelope. A final one `replaces` live numbers. Totals over media buys are left
        to answers.
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

    to: DeliveryReports
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
            self.to.caller.post(body, self.to.form.headers(self.report.key, body))
        except Refused:
            self.to.refuse(self)
            raise
        except Busy:
            if self.to.clock_s() - self.report.made_ms / 1000 > self.to.give_up.total_seconds():
                self.to.refuse(self)  # the loop makes it a dead letter
            raise
        self.end()
        self.to.reports.keep()

    def end(self) -> None:
        """Remove the report, so that the next one can be made."""
        if self.buy.pending is self.report:
            self.buy.pending = None
