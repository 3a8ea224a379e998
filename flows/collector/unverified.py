"""Unverified servers: networks of callers that speak for others' devices and are not believed.

The operator reads here which networks to list. A network is a /24 or a /48, no address. Only the first name
of a user agent is stored, and it is reported from `AGENT_FROM` calls on: fewer may be one person's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, ip_network
from typing import Any, Final

from flows.collector.call import Call, Claimant
from flows.collector.callers import Address, Device, DeviceFrom

SHOWN: Final = 10
AGENT_FROM: Final = 20
MAX_NETWORKS: Final = 2_000
"""The greatest number of networks that are counted at a time; above it the rarer half is dropped."""
_PREFIXES: Final = {4: 24, 6: 48}
_AGENT: Final = re.compile(r"[A-Za-z][A-Za-z0-9 ._-]{0,39}(?:/[0-9][0-9A-Za-z.]{0,11})?")
_MAX_KNOWN: Final = 4_096


@dataclass(slots=True)
class _Counted:
    calls: int
    claimant: Claimant
    lead: int


class UnverifiedServers:
    """Counts the calls of claimants by network, up to `MAX_NETWORKS`.

    Each network keeps the claimant with most of its calls, by majority vote.
    """

    def __init__(self) -> None:
        self._counted: dict[str, _Counted] = {}

    def count(self, claimant: Claimant) -> None:
        """Count a call."""
        counted = self._counted.get(claimant.network)
        if counted is None:
            if len(self._counted) >= MAX_NETWORKS:
                self._forget()
            self._counted[claimant.network] = _Counted(1, claimant, 1)
            return
        counted.calls += 1
        if counted.claimant == claimant:
            counted.lead += 1
        elif counted.lead > 0:
            counted.lead -= 1
        else:
            counted.claimant, counted.lead = claimant, 1

    def _forget(self) -> None:
        """Keep the half of the networks with most calls."""
        busiest = sorted(self._counted.items(), key=lambda one: -one[1].calls)
        self._counted = dict(busiest[: MAX_NETWORKS // 2])

    def worst(self) -> list[dict[str, Any]]:
        """The `SHOWN` networks with most calls, as values of JSON."""
        counted = sorted(self._counted.values(), key=lambda one: (-one.calls, one.claimant.network))
        return [
            {
                "network": one.claimant.network,
                "agent": one.claimant.agent if one.calls >= AGENT_FROM else "",
                "calls": one.calls,
                "device_from": one.claimant.device_from,
            }
            for one in counted[:SHOWN]
        ]


def claimant_of(where: Device, call: Call, of_dialect: DeviceFrom | None) -> Claimant | None:
    """The claimant of a call; None if it claims nothing, or its address is unknown.

    Args:
        of_dialect: where the servers of the call's dialect have the device's address.
    """
    if where.caller is None or not where.ignored or where.perhaps_itself:
        return None
    match = _AGENT.match(where.user_agent)
    agent = match.group().strip() if match else ""
    from_headers = "x-device-ip" in call.headers or "x-device-user-agent" in call.headers
    device_from: DeviceFrom = "x-device" if from_headers else of_dialect or "query"
    return Claimant(_network(where.caller), agent, device_from)


@lru_cache(_MAX_KNOWN)
def _network(address: Address) -> str:
    return str(
        ip_network(f"{address}/{_PREFIXES[4 if isinstance(address, IPv4Address) else 6]}", strict=False)
    )
