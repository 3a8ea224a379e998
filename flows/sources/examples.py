"""The examples of a source, which are its tests: messages, each with its outcome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from flows.collector.call import Outcome, Understood
from flows.sources.messages import example_of
from flows.sources.paths import Message
from flows.sources.pixels import Pixels
from flows.sources.source import Example, Source


def failures(pixels: Pixels) -> Iterator[str]:
    """A line for each example of a source that fails."""
    for number, example in enumerate(pixels.source.example, 1):
        understood = pixels.understand(
            _message(pixels.source, example), None if not pixels.source.live else _stamp_ms(example) or None
        )
        if why := _differs(example, understood):
            yield f"example {number}: {why}"


def _message(source: Source, example: Example) -> Message:
    if isinstance(example.message, str):
        document: Mapping[str, Any] | None = example_of(source, example.message)
    else:
        document = example.message
    message = Message(document, "example", 0, 1, _stamp_ms(example), example.key.encode())
    return message._replace(schema=example.of_schema)


def _stamp_ms(example: Example) -> int:
    stamp = example.timestamp
    return round(stamp.timestamp() * 1000) if isinstance(stamp, datetime) else stamp or 1


def _differs(example: Example, understood: Understood | None) -> str:
    """The difference of an outcome from the example's; empty if they agree."""
    if understood is None or understood.outcome is Outcome.NOT_COUNTED:
        return "" if example.not_ours else "is not ours"
    if understood.outcome is Outcome.REJECTED:
        rejection = f"{understood.reason} {understood.wrong}".strip()
        return "" if example.rejected in (rejection, understood.reason) else f"is rejected: {rejection}"
    if example.pixel is None:
        return f"is a pixel: {_json(understood.event)}"
    return _missing(example.pixel, understood.event)


def _missing(wanted: Mapping[str, Any], event: Mapping[str, Any]) -> str:
    for name, value in wanted.items():
        event_value = event.get(name)
        if isinstance(value, Mapping) and isinstance(event_value, Mapping):
            if why := _missing(value, event_value):
                return f"{name}.{why}"
        elif _json(event_value) != _json(value):
            return f"{name} is {_json(event_value)}, not {_json(value)}"
    return ""


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
