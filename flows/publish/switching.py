"""Switches: which of two flows writes the serving rows, and where the other flow writes.

The serving flow writes at the namespace of the settings. The second flow writes at
`flows.model.redis_keys.recomputation_namespace` of that namespace and a name. A request in Redis has this
name and the next generation (docs/architecture.md). A request is never deleted. It has no effect once the
rows are of its generation.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from connectors.redis import Client, connect, put_fields, read_rows, server_clock
from flows.model.freshness import FLUSH_STALE_S
from flows.model.redis_keys import recomputation_namespace, switch_key
from flows.publish.covered import number_of, positions_key
from flows.publish.fence import latest_fence_record
from flows.settings import Settings

FRESH_MS: Final = 15_000
"""The time for which a request is valid. The command repeats it."""
ABANDONED_MS: Final = 30_000
"""The time after which the second flow takes back rows that another flow has claimed but not written."""
_FIELDS: Final = (
    "generation",
    "fence",
    "unjudged_reason",
    "flushed_ms",
    "name",
    "asked_ms",
    "taken",
    "left",
    "taken_ms",
)


class Standing(NamedTuple):
    """The state of the serving rows in Redis, and of the last requested switch.

    Attributes:
        generation, fence: of the flow that has claimed the rows; 0 without a claim.
        shown: the generation of `meta`.
        reason: why delivery is not judged; empty while it is judged.
        flushed_ms: of `meta`.
        name, wanted, asked_ms: name and generation of the request, and when it was made.
        taken_generation, left, taken_ms: generation of the flow that took the rows last, the name that it
            has left, and when.
    """

    generation: int
    fence: int
    shown: int
    reason: str
    flushed_ms: int
    name: str
    wanted: int
    asked_ms: int
    taken_generation: int
    left: str
    taken_ms: int

    def fresh(self, now_ms: int) -> bool:
        """True if the request is to be followed now."""
        return self.wanted == self.generation + 1 and now_ms - self.asked_ms < FRESH_MS

    def due(self, name: str, now_ms: int, taking: int) -> int:
        """The generation with which the second flow of that name takes the rows now; 0 if it must not take
        them.

        Args:
            taking: the fence of its claim; 0 without a claim.
        """
        if taking and self.fence == taking:  # the answer to its claim was lost
            return self.generation
        if self.taken_generation == self.generation and self.left == name and self.shown < self.generation:
            return self.generation + 1 if now_ms - self.taken_ms >= ABANDONED_MS else 0
        silent = now_ms - self.flushed_ms > FLUSH_STALE_S * 1000
        # An emptied Redis does not show which generation readers have had.
        requested = self.generation > 0 and self.name == name and self.fresh(now_ms)
        return self.wanted if requested and (self.reason == "switching" or silent) else 0

    @property
    def beside(self) -> str | None:
        """The name under which the flow that served before continues; None if no switch has taken the
        rows.
        """
        return self.left if self.generation and self.taken_generation == self.generation else None


def standing(client: Client, namespace: str) -> Standing:
    """The state in Redis now.

    Raises:
        ConnectError: Redis does not serve.
        StateError: another program has written there.
    """
    keys = [positions_key(namespace), f"{namespace}:meta", switch_key(namespace)]
    claimed, meta, request = read_rows(client, keys, _FIELDS)
    return Standing(
        generation=number_of(claimed, "generation"),
        fence=number_of(claimed, "fence"),
        shown=number_of(meta, "generation"),
        reason=meta.get("unjudged_reason", ""),
        flushed_ms=number_of(meta, "flushed_ms"),
        name=request.get("name", ""),
        wanted=number_of(request, "generation"),
        asked_ms=number_of(request, "asked_ms"),
        taken_generation=number_of(request, "taken"),
        left=request.get("left", ""),
        taken_ms=number_of(request, "taken_ms"),
    )


def ask(client: Client, namespace: str, name: str, generation: int, asked_ms: int | None = None) -> None:
    """Ask the second flow of that name to take the serving rows under a generation.

    Args:
        asked_ms: when, by Redis's clock; None: now.

    Raises:
        ConnectError: Redis does not serve.
    """
    if asked_ms is None:
        asked_ms, _ = server_clock(client, switch_key(namespace), "name")
    fields = {"name": name, "generation": str(generation), "asked_ms": str(asked_ms)}
    put_fields(client, {switch_key(namespace): fields})


def note_taken(client: Client, namespace: str, left: str, generation: int, now_ms: int) -> None:
    """Write where the serving flow continues; call it before its rows are taken.

    Args:
        left: the name that the taking flow leaves.

    Raises:
        ConnectError: Redis does not serve.
    """
    fields = {"taken": str(generation), "left": left, "taken_ms": str(now_ms)}
    put_fields(client, {switch_key(namespace): fields})


def seated(settings: Settings) -> Settings:
    """The settings, with the present namespace of this flow's rows. A switch may have moved them, even while
    the flow was down.

    Raises:
        ConnectError: Redis does not serve.
        StateError: the recovery directory cannot be read.
    """
    last = latest_fence_record(settings.recovery_dir)
    namespace = last.namespace or settings.rows_at
    if namespace == settings.namespace and last.generation:
        client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
        state = standing(client, settings.namespace)
        client.close()
        if last.left and 0 < state.generation < last.generation:  # the flow died before its claim
            namespace = last.left
        elif state.generation > last.generation and state.beside is not None:
            namespace = recomputation_namespace(settings.namespace, state.beside)
    return settings.model_copy(update={"rows_namespace": namespace})
