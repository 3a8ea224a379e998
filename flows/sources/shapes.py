"""Shapes: the fields that messages of a schema can have, known before any message.

A shape is a table of fields, a list, a table of any names, `TEXT` (which may be JSON), or `PLAIN` (a value
without fields).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from flows.collector.dialects import CONSENT
from flows.sources.paths import Path
from flows.sources.source import Source, alternatives


class ListOf(NamedTuple):
    """A list; `items` is the shape of each item."""

    items: Shape


class MapOf(NamedTuple):
    """A table of any names; `values` is the shape of each value."""

    values: Shape


TEXT: Final = "text"
PLAIN: Final = "plain"
Shape = Mapping[str, "Shape"] | ListOf | MapOf | str
STRICT: Final = CONSENT | {"ts", "event_id"}
"""Fields whose absence changes a pixel's meaning: an unseen refusal, another minute, a repeat."""


def lacking(source: Source, shape: Shape) -> str:
    """The first mapped field of `STRICT` that messages of a schema cannot have; empty if there is none."""
    paths = {field: [Path(one) for one in alternatives(names)] for field, names in source.names.items()}
    lost = (field for field in sorted(STRICT & paths.keys()) if not _any_present(paths[field], shape))
    return next(lost, "")


def _any_present(paths: list[Path], shape: Shape) -> bool:
    return any(one.root or may_have(one, shape) for one in paths)


def may_have(path: Path, shape: Shape) -> bool:
    """True if a message of a shape may have a value at a path."""
    if isinstance(shape, Mapping) and path.text in shape:
        return True
    for step in path.steps:
        if shape == TEXT:
            return True
        if isinstance(step, str):
            inner = (
                shape.values
                if isinstance(shape, MapOf)
                else shape.get(step)
                if isinstance(shape, Mapping)
                else None
            )
        else:
            inner = shape.items if isinstance(shape, ListOf) else None
        if inner is None:
            return False
        shape = inner
    return True


def union_shape(shapes: Iterator[Shape]) -> Shape:
    """The shape of a value that has one of several shapes."""
    union: Shape = PLAIN
    for shape in shapes:
        if isinstance(union, Mapping) and isinstance(shape, Mapping):
            union = {**union, **shape}
        elif TEXT in (union, shape):
            union = TEXT
        elif union == PLAIN:
            union = shape
    return union
