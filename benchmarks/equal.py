"""The flow and a rival of equal work by turns, from one log to Redis: `python -m benchmarks.equal`.

The rival is `benchmarks.peers.equal`. Before times, both are compared with DuckDB's exact query, and each
field that the rival writes with the flow's. They must be equal, except for reach beyond 1,000 listeners and
its frequency: there each of the two has an estimate by hashes of its own, compared with the exact count.
"""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import ClassVar, Final

from benchmarks.answers import EXACT_REACH
from benchmarks.bench import EVERYTHING, LONG_EVENTS, Bench, command
from benchmarks.peers import equal
from benchmarks.peers.job import Unavailable
from benchmarks.report import OURS, worse
from connectors.embedded import EmbeddedValkey
from connectors.redis.client import Client, connect
from connectors.redis.commands import read_rows, scan_index
from flows.model.dimensions import SCOPES
from flows.model.redis_keys import row_key

RIVAL: Final = "peers.equal"
UNATTRIBUTED: Final = "flow_unattributed"
LEFT_OUT: Final = re.compile(
    r"generation|fence|rev|updated_ms"
    r"|(5m|1h|1d|flight)\.(conversion.*|skips|mutes)"
    r"|flight\.blocked_impressions|frequency\..*"
)
"""Fields of the flow's rows that the rival does not write."""


def different_fields(client: Client, ours: str, rivals: str) -> list[str]:
    """Each field of the rival's rows that differs from the flow's, and each that only one of them has.

    Args:
        ours, rivals: namespaces.
    """
    found = []
    for scope in SCOPES:
        names, others = (sorted(scan_index(client, f"{space}:index:{scope}")) for space in (ours, rivals))
        if names != others:
            found.append(f"{scope}: {len(names)} rows and {len(others)}")
            continue
        keys = ([row_key(space, scope, name) for name in names] for space in (ours, rivals))
        pairs = zip(*(read_rows(client, of) for of in keys), strict=True)
        for name, (own, other) in zip(names, pairs, strict=True):
            for field in sorted(own.keys() | other.keys()):
                one, two = own.get(field), other.get(field)
                window, _, metric = field.partition(".")
                estimated = metric in ("reach", "frequency") and int(own[f"{window}.reach"]) > EXACT_REACH
                if one != two and not estimated and not (two is None and LEFT_OUT.fullmatch(field)):
                    found.append(f"{scope}/{name} {field}: {one} and {two}")
    return found


class EqualBench(Bench):
    """The flow and the rival of equal work, by turns."""

    name: ClassVar[str] = "equal"
    usual: ClassVar[int] = LONG_EVENTS

    def _contend(self) -> None:
        self.truth = self._child("duckdb_batch").answers
        try:
            with self.progress.status("building the rival"):
                about = f"{equal.version()}: equal work by hand, exactly-once snapshot a second, to Redis"
        except Unavailable as reason:
            print(f"left out: {RIVAL}: {reason}")
            about = ""
        without = "the same without attribution, as the rival"
        contenders = {OURS: EVERYTHING} | ({UNATTRIBUTED: without, RIVAL: about} if about else {})
        with EmbeddedValkey() as valkey:
            whole = self._child(OURS, "minutes", redis_url=valkey.url, minutes=True)
            self._compare("audiopixel", whole.answers)
            runs = self._by_turns(
                {one: partial(self._child, one, redis_url=valkey.url) for one in contenders}
            )
            for one, name in contenders.items():
                self._take(one, name, runs[one])
            if about:
                client = connect(valkey.url)
                spaces = (equal.namespace(f"{one}_run_{self.turns}") for one in (OURS, RIVAL))
                self.wrong += [f"{RIVAL} differs: {line}" for line in different_fields(client, *spaces)]
                client.close()

    def _figures(self) -> dict[str, float]:
        if RIVAL not in self.results:
            return {}
        ours, without, rival = (self.results[one] for one in (OURS, UNATTRIBUTED, RIVAL))
        return {"by_equal": worse(ours, rival), "unattributed_by_equal": worse(without, rival)}

    def _end(self) -> None:
        """Nothing."""


if __name__ == "__main__":
    sys.exit(command(EqualBench, __doc__))
