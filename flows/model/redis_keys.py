"""The spelling of keys in Redis."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date


def deny_key(namespace: str) -> str:
    """A hash: the listener's key in hexadecimal to when it was denied, in epoch ms."""
    return f"{namespace}:forgotten"


def erased_key(namespace: str) -> str:
    """A hash. A forgotten key's `erased_field` has JSON: the time, the cut, and the state that was found. A
    cut's name has JSON of its positions.
    """
    return f"{namespace}:erased"


def erased_field(key: int) -> str:
    """A keyed hash as the deny-list and `erased_key` have it."""
    return f"{key:016x}"


def row_key(namespace: str, scope: str, name: str) -> str:
    """The key of a row."""
    return f"{namespace}:{scope}:{{{name}}}"


def saves_key(namespace: str, member: int) -> str:
    """A hash: a cluster member's statements on its saves, at a start and after each save."""
    return row_key(namespace, "saves", str(member))


def beside(namespace: str, name: str) -> str:
    """The namespace of the rows of a recomputation `name`, or of the flow that it has replaced."""
    return f"{namespace}:recompute:{name}"


def switch_key(namespace: str) -> str:
    """The key of a hash of switches. `name`, `generation` and `asked_ms` are of the latest request. `taken`
    is the generation that took the rows last, `left` the name that its flow left, `taken_ms` when.
    """
    return f"{namespace}:switch"


def topics_key(namespace: str) -> str:
    """A hash: a topic of pixels to the id that the brokers gave it when it was begun."""
    return f"{namespace}:topics"


def collectors_key(namespace: str) -> str:
    """A hash: a collector's id to when it last wrote its figures, in epoch ms."""
    return f"{namespace}:collectors"


def sources_key(namespace: str) -> str:
    """A hash: the id of a source's process to when it last wrote its figures, in epoch ms."""
    return f"{namespace}:sources"


def calls_key(namespace: str, collector: str) -> str:
    """A hash: `calls`, JSON of a collector's last calls, and `events`, the number that these are a
    sample of.
    """
    return row_key(namespace, "calls", collector)


def collector_keys_key(namespace: str) -> str:
    """A hash: the id of a collector's key, as pseudonyms begin with it, to when a collector last had it in
    force, in epoch ms.
    """
    return f"{namespace}:collector_keys"


def archive_key(namespace: str) -> str:
    """A hash: the receipt up to which the archive has all messages, the number that it lacks, and the time of
    that statement.
    """
    return f"{namespace}:archive"


def tags_key(namespace: str) -> str:
    """A hash: a placement whose tag was built and has not fired since, to JSON of that tag."""
    return f"{namespace}:tags"


def day_key(namespace: str, placement: str, day: date) -> str:
    """A hash: a placement's counts of a calendar day."""
    (key,) = day_keys(namespace, [placement], day)
    return key


def day_keys(namespace: str, placements: Iterable[str], day: date) -> list[str]:
    """The `day_key` of each."""
    day_text = day.isoformat()
    return [f"{row_key(namespace, 'days', placement)}:{day_text}" for placement in placements]


def door_key(namespace: str, placement: str, day: str) -> str:
    """A hash: `<reason>/<collector>/<since when, ms>` to a day's impressions that a collector rejected."""
    return f"{row_key(namespace, 'door', placement)}:{day}"


def methodology_key(namespace: str, method_hash: str) -> str:
    """A hash: `text`, the JSON of the description of methodology that has the hash `method_hash`."""
    return row_key(namespace, "methodology", method_hash)
