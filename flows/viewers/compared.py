"""A file of others' counts that a reader drops on the page, compared with ours; it is not stored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.redis import Client
from connectors.stream import ConnectError
from flows.errors import AudiopixelError, UsageError
from flows.model.plan import Plan
from flows.viewers.disputed import described
from flows.waterfall import compare, letter, read_csv

MAX_FILE_BYTES: Final = 1 << 20
"""The most bytes of a file."""
MAX_FILE_ROWS: Final = 1_000
"""The most rows of a file."""
BUSY: Final = "Another file is being compared: send yours again in some seconds."


@dataclass
class Compared:
    """Compares files, one at a time.

    Args:
        zone: the zone of calendar days.
        plans: returns the plans in force.
    """

    client: Client
    namespace: str
    zone: ZoneInfo
    plans: Callable[[], Mapping[str, Plan]]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, data: bytes) -> tuple[int, dict[str, Any]]:
        """The status and the answer to a CSV: `rows`, each with its `letter`, or `error`."""
        if not self._lock.acquire(blocking=False):
            return 429, {"error": BUSY}
        try:
            claims = read_csv(data, "your file", MAX_FILE_ROWS)
            comparisons = compare(self.client, self.namespace, self.zone, self.plans(), claims)
        except UsageError as error:
            return 400, {"error": str(error)}
        except ConnectError:
            return 503, {"error": "our counts cannot be read now"}
        except AudiopixelError as error:
            return 503, {"error": str(error)}
        finally:
            self._lock.release()
        rows = [
            described(row) | {"letter": letter(row), "scope": row.scope, "id": row.name}
            for row in comparisons
        ]
        return 200, {"rows": rows}
