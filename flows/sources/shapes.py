"""Shapes: the fields that messages of a schema can have, known before any message.

A shape is a table of fields, a list, a table of any names, one of several shapes, `TEXT` (which may be JSON),
or `PLAIN` (a value without fields). A table of fields may contain itself.
"""

from __future__ import annotations

from collections.abc import Mapping
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


class AnyOf(NamedTuple):
    """A value that has one of several shapes."""

    shapes: tuple[Shape, ...]


TEXT: Final = "text"
PLAIN: Final = "plain"
Shape = Mapping[str, "Shape"] | ListOf | MapOf | AnyOf | str
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
    shapes = _members([shape])
    for step in path.steps:
        if TEXT in shapes:
            return True
        if isinstance(step, str):
            inner = [
                one.values if isinstance(one, MapOf) else one.get(step)
                for one in shapes
                if isinstance(one, MapOf | Mapping)
            ]
        else:
            inner = [one.items for one in shapes if isinstance(one, ListOf)]
        shapes = _members([one for one in inner if one is not None])
    return bool(shapes)


def _members(shapes: list[Shape]) -> list[Shape]:
    """Each of some shapes once, with the members of an `AnyOf` in its place."""
    members: dict[int, Shape] = {}
    while shapes:
        shape = shapes.pop()
        if isinstance(shape, AnyOf):
            shapes += shape.shapes
        else:
            members[id(shape)] = shape
    return list(members.values())
