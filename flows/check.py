"""The check of files of pixels against the form of the canonical event, by the flow's own decoder.

The check looks at each message alone; only the flow can find repeats and late pixels. No value is shown,
since a value may identify a listener.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from rich.table import Table

from connectors.files import FileInput
from connectors.stream import EndOfInput
from flows.intake import Decoder, Rejection
from flows.model.catalogue.fields import FIELDS, Kind
from flows.model.events import CONVERSION_TYPES, EVENTS, MALFORMED, UNKNOWN_EVENT
from flows.settings import nearest
from flows.shown import LINE, shown, table_of_faults

BATCH: Final = 10_000
"""The number of lines that are decoded at once."""

_ID: Final = "takes a text of at most 128 characters"
_TIME: Final = "takes epoch milliseconds, or RFC 3339 with an offset, from 1970 to 2099"
_BY_KIND: Final = {
    Kind.ID: _ID,
    Kind.TEXT: "takes a text",
    Kind.MOMENT: _TIME,
    Kind.WHOLE: "takes a whole number of milliseconds",
    Kind.TRUTH: "takes true or false",
    Kind.CATEGORIES: "takes a text, or a list of texts",
}
TAKES: Final[Mapping[str, str]] = {
    **{field.name: field.takes or _BY_KIND[field.kind] for field in FIELDS},
    "event": f"takes one of {' '.join(EVENTS)}",
    "ts": f"{_TIME}, and is required",
    "conversion.type": f"takes one of {' '.join(CONVERSION_TYPES)}",
    "conversion.order_id": _ID,
    "conversion.value": "takes a decimal number, or a text that holds one",
    "conversion.currency": "takes three capital letters, such as GBP (ISO 4217)",
    "conversion.claimed": "takes true or false",
    **dict.fromkeys(("previous.listener_id", "previous.household_id"), _ID),
}
"""The values that each field takes, in words for people who make pixels."""
_NO_EVENT: Final = "takes a JSON object in UTF-8, of at most 64 KiB"


@dataclass
class CheckResult:
    """The findings so far.

    Attributes:
        received: the number of lines read, without the marks.
        marks: the number of lines that are marks of collectors.
        rejected: the number of lines that are no pixel, by reason and field.
        first: the place of the first such line, `FILE:LINE`, by reason and field.
        foreign: the files whose first line is a JSON object without any of our fields.
    """

    received: int = 0
    marks: int = 0
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], str] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)

    def account(self) -> str:
        """The account in words: every line is a mark, a pixel, or rejected."""
        wrong = self.rejected.total()
        account = f"received {self.received:,} = pixels {self.received - wrong:,} + rejected {wrong:,}"
        return f"{account}; marks {self.marks:,}" if self.marks else account

    def table(self) -> Table:
        """The rejected lines by reason and field, the most frequent first."""
        return table_of_faults(self.rejected, self.first)


def check(files: Sequence[str], result: CheckResult, report: Callable[[str], None]) -> None:
    """Decode all lines of `files` as a replay would, and call `report` for each line that is no pixel, in
    order.

    Raises:
        ConnectError: a file cannot be read.
    """
    source = FileInput(files)
    for file in source.partitions():
        for line, rejection in _rejected(source, file, result):
            reason_and_field, where = (rejection.reason, rejection.field or ""), f"{file}:{line}"
            result.rejected[reason_and_field] += 1
            result.first.setdefault(reason_and_field, where)
            report(shown(f"{where}: {fault_words(rejection)}", LINE))


def first_fault(files: Sequence[str]) -> str | None:
    """The first line that is no pixel, with its place; None if all are pixels.

    Raises:
        ConnectError: a file cannot be read.
    """
    source = FileInput(files)
    for file in source.partitions():
        for line, rejection in _rejected(source, file, CheckResult()):
            return shown(f"{file}:{line}: {fault_words(rejection)}", LINE)
    return None


def fault_words(rejection: Rejection) -> str:
    """The reason, the field, and the values that the field takes; never the value in the message."""
    name = rejection.field or ""
    takes = _NO_EVENT if rejection.reason == MALFORMED else TAKES.get(name, "")
    if rejection.reason == UNKNOWN_EVENT:
        takes += nearest(str(rejection.fields["event"].get("event", "")), EVENTS)
    return ": ".join(filter(None, (rejection.reason, name, takes)))


def _rejected(source: FileInput, file: str, result: CheckResult) -> Iterator[tuple[int, Rejection]]:
    # Any key will do, since nothing uses the hashes.
    decoder, reader = Decoder(secrets.token_bytes(32)), source.open(file, None)
    try:
        while True:
            messages = reader.read(BATCH)
            if reader.position <= BATCH and messages is not None and _foreign(messages.values[0]):
                result.foreign.append(file)
            batch = decoder.decode(messages)
            result.received += batch.received
            result.marks += batch.marks
            yield from sorted(batch.rejected, key=lambda rejected: rejected[0])
    except EndOfInput:
        return
    finally:
        reader.close()


def _foreign(line: bytes) -> bool:
    """True if a line is a JSON object without any of our fields."""
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return bool(fields) and not fields.keys() & {name.partition(".")[0] for name in TAKES}
