"""Accounts of erasure in Redis: the data that the flow had of a forgotten person, and the cut that removed
it.

`audiopixel forget` reads them. The first account of a key stays, since a flow that starts again erases again
and finds no data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from connectors.redis import Client, put_fields, read_rows
from flows.model.messages import Erased
from flows.model.redis_keys import erased_field, erased_key
from flows.model.ticks import Cut


def accounts_of(cut: Cut, erased: Sequence[Erased], at_ms: int) -> dict[str, str]:
    """The fields of the hash at `erased_key` for the erasures of a cut; empty without erasures.

    Args:
        at_ms: epoch ms.
    """
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    for key, state_kind, count in erased:
        counts[key][state_kind] = counts[key].get(state_kind, 0) + count
    if not counts:
        return {}
    name = f"cut-{cut.number}"
    accounts = {
        erased_field(key): {"cut": name, "at_ms": at_ms, "found": by_place}
        for key, by_place in counts.items()
    }
    of_cut = {"at_ms": at_ms, "watermark_ms": cut.watermark_ms, "positions": dict(cut.positions)}
    return {
        field: msgspec.json.encode(account).decode() for field, account in {**accounts, name: of_cut}.items()
    }


def put_accounts(client: Client, namespace: str, accounts: Mapping[str, str]) -> None:
    """Write the accounts whose keys are not in Redis yet.

    Raises:
        RedisUnavailable: some may not have been written; repeat the call.
    """
    if not accounts:
        return
    key = erased_key(namespace)
    (stored,) = read_rows(client, [key], [*accounts])
    put_fields(client, {key: {field: account for field, account in accounts.items() if field not in stored}})
