"""Reads a side of a comparison: a namespace and its `meta`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from connectors.redis import Client, read_rows
from flows.errors import AudiopixelError, StateError
from flows.publish import number_of

FIELDS: Final = (
    "generation",
    "fence",
    "rev",
    "watermark_ms",
    "flushed_ms",
    "unjudged_reason",
    "methodology",
    "allowed_lateness_ms",
    "counted_since_ms",
)


class Side(NamedTuple):
    """A namespace at one version.

    Attributes:
        version: the generation, fence and rev of `meta`.
        reason: the reason why delivery is not judged; empty if it is judged.
        methodology: the hash of the description of methodology.
    """

    namespace: str
    version: tuple[int, int, int]
    watermark_ms: int
    flushed_ms: int
    reason: str
    methodology: str
    lateness_ms: int
    counted_since_ms: int

    @property
    def generation(self) -> int:
        """The generation whose rows are used."""
        return self.version[0]


def side_of(client: Client, namespace: str) -> Side:
    """The side by its present `meta`.

    Raises:
        AudiopixelError: no flow has written to the namespace.
        ConnectError: Redis does not answer.
    """
    (meta,) = read_rows(client, [f"{namespace}:meta"], FIELDS)
    if "generation" not in meta:
        raise AudiopixelError(f"no flow has written to {namespace}:meta")
    return _side(namespace, meta)


def _side(namespace: str, meta: Mapping[str, str]) -> Side:
    try:
        version = number_of(meta, "generation"), number_of(meta, "fence"), number_of(meta, "rev")
        return Side(
            namespace,
            version,
            number_of(meta, "watermark_ms"),
            number_of(meta, "flushed_ms"),
            meta.get("unjudged_reason", ""),
            meta.get("methodology", ""),
            number_of(meta, "allowed_lateness_ms"),
            number_of(meta, "counted_since_ms"),
        )
    except StateError as error:
        raise AudiopixelError(f"{namespace}:meta is damaged: {error}") from None


def progress_of(client: Client, namespace: str, rows_at: str) -> tuple[dict[str, str], bool]:
    """The progress of a recomputation, as texts by name, and whether it is live.

    Args:
        rows_at: the recomputation's own namespace.

    Raises:
        AudiopixelError: the recomputation has not written yet.
        ConnectError: Redis does not answer.
    """
    second = side_of(client, rows_at)
    texts = {"through": moment(second.watermark_ms)}
    (meta,) = read_rows(client, [f"{namespace}:meta"], FIELDS)
    if "generation" in meta:
        serving = _side(namespace, meta)
        whole_ms = serving.watermark_ms - second.counted_since_ms
        done_ms = second.watermark_ms - second.counted_since_ms
        texts["serving"] = moment(serving.watermark_ms)
        if second.counted_since_ms and whole_ms > 0:
            texts["share"] = f"{min(1.0, max(0.0, done_ms / whole_ms)):.1%}"
    return texts, second.reason not in ("catching_up", "starting")


def moment(ms: int) -> str:
    """Epoch ms as RFC 3339; `not known` for 0."""
    if ms <= 0:
        return "not known"
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
