"""The rows that readers have from earlier executions; the row shards ask for them. A row in Redis that began
after the last save must not count in `other` when the log is read again.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from contextlib import closing
from threading import Lock
from typing import Any, Final

from connectors.redis import connect, read_rows, scan_index
from flows.model.dimensions import SCOPES
from flows.model.redis_keys import row_key
from flows.model.ticks import Cut
from flows.publish.covered import positions_key, positions_of
from flows.publish.fence import latest_fence_record
from flows.settings import Settings
from flows.state.homes import Homes

_GENERATION: Final = "generation"


class ShownRows:
    """The rows of earlier executions in Redis, read once by each process, at the first cut.

    Args:
        recompute: whether `--recompute` was given: the first execution with it has no earlier execution.
    """

    def __init__(self, settings: Settings, recompute: bool = False) -> None:
        self._settings, self._recompute = settings, recompute
        self._lock = Lock()
        self._rows: dict[int, list[tuple[str, str]]] | None = None
        self._held: Mapping[str, str] = {}

    def rows(
        self, shard: int, homes: Homes, present_rows: Container[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """Scope and name of a shard's rows that are not in `present_rows`. Each shard calls it once.

        Raises:
            ConnectError: Redis does not serve.
            StateError: the recovery directory cannot be read.
        """
        with self._lock:
            if self._rows is None:
                with self._redis() as client:
                    self._rows = self._read(client, homes)
            rows = [row for row in self._rows.pop(shard, []) if row not in present_rows]
        if not rows:
            return []
        keys = [row_key(self._settings.rows_at, *row) for row in rows]
        with self._redis() as client:
            shown = read_rows(client, keys, [_GENERATION])
        return [row for row, fields in zip(rows, shown, strict=True) if fields and fields == self._generation]

    def _redis(self) -> closing[Any]:
        url, timeout = self._settings.redis_url.get_secret_value(), self._settings.redis_timeout
        return closing(connect(url, timeout=timeout))

    def passed(self, cut: Cut) -> bool:
        """True if a cut has passed the positions that these rows cover."""
        return cut.reaches(positions_of(self._held))

    @property
    def _generation(self) -> dict[str, str]:
        return {_GENERATION: self._held.get(_GENERATION, "")}

    def _read(self, client: Any, homes: Homes) -> dict[int, list[tuple[str, str]]]:
        namespace, rows = self._settings.rows_at, dict[int, list[tuple[str, str]]]()
        if self._recompute and not latest_fence_record(self._settings.recovery_dir).begun:
            return rows
        (self._held,) = read_rows(client, [positions_key(namespace)])
        for scope in SCOPES if positions_of(self._held) else ():
            names = scan_index(client, f"{namespace}:index:{scope}")
            for name, shard in zip(names, homes.shards_of(scope, names).tolist(), strict=True):
                rows.setdefault(shard, []).append((scope, name))
        return rows
