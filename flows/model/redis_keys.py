"""The spelling of keys in Redis."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date


def deny_key(namespace: str) -> str:
    """A hash: a listener's keyed hash (`erased_field`) to the time of its denial, in epoch ms."""
    return f"{namespace}:forgotten"


def erased_key(namespace: str) -> str:
    """A hash of two kinds of fields. The `erased_field` of an erased key has JSON of the time, the cut, and
    the state that was found. The name of a cut has JSON of its positions.
    """
    return f"{namespace}:erased"


def erased_field(key: int) -> str:
    """A keyed hash as a field of `deny_key` and `erased_key`: 16 hexadecimal digits."""
    return f"{key:016x}"


def row_key(namespace: str, scope: str, name: str) -> str:
    """The key of a row."""
    return f"{namespace}:{scope}:{{{name}}}"


def saves_key(namespace: str, member: int) -> str:
    """A hash: a cluster member's statements on its saves, at a start and after each save."""
    return row_key(namespace, "saves", str(member))


def recomputation_namespace(namespace: str, name: str) -> str:
    """The namespace of the rows of a recomputation `name`, or of the flow that it has replaced."""
    return f"{namespace}:recompute:{name}"


def switch_key(namespace: str) -> str:
    """A hash of the switch between flows. `name`, `generation` and `asked_ms` are of the latest request.
    `taken` is the generation that took the rows last, `left` the name that its flow left, `taken_ms` the
    time, epoch ms.
    """
    return f"{namespace}:switch"


def topics_key(namespace: str) -> str:
    """A hash: a topic of pixels to the id that the brokers gave it when it was begun."""
    return f"{namespace}:topics"


def collectors_key(namespace: str) -> str:
    """A hash: a collector's id to the time at which it last wrote its figures, in epoch ms."""
    return f"{namespace}:collectors"


def sources_key(namespace: str) -> str:
    """A hash: the id of a source's process to the time at which it last wrote its figures, in epoch ms."""
    return f"{namespace}:sources"


def calls_key(namespace: str, collector: str) -> str:
    """A hash: `calls`, JSON of a collector's last calls, and `events`, the number of events of which these
    are a sample.
    """
    return row_key(namespace, "calls", collector)


def collector_keys_key(namespace: str) -> str:
    """A hash: the id of a collector's key, with which pseudonyms begin, to the time at which a collector last
    had the key in force, in epoch ms.
    """
    return f"{namespace}:collector_keys"


def archive_key(namespace: str) -> str:
    """A hash: the receipt up to which the archive has all messages, the number that it lacks, the number of
    its objects that cannot be read, and the time of that statement.
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
    """The `day_key` of each placement."""
    day_text = day.isoformat()
    return [f"{row_key(namespace, 'days', placement)}:{day_text}" for placement in placements]


def door_key(namespace: str, placement: str, day: str) -> str:
    """A hash: `<reason>/<collector>/<since when, ms>` to a day's impressions that a collector rejected."""
    return f"{row_key(namespace, 'door', placement)}:{day}"


def methodology_key(namespace: str, method_hash: str) -> str:
    """A hash: `text`, the JSON of the description of methodology that has the hash `method_hash`."""
    return row_key(namespace, "methodology", method_hash)
