"""Unverified servers: networks of callers that name other devices and have no right to.

The live page shows them, so that the operator can list the right ones. A network is a /24 or a /48, never an
address. Only the first name of a user agent is stored, and it is reported from `AGENT_FROM` calls on: fewer
calls may be one person's.
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
"""The number of networks that are reported."""
AGENT_FROM: Final = 20
"""The number of calls from which on a network's user agent is reported."""
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

    A network's claimant is the one with most of its calls, by majority vote.
    """

    def __init__(self) -> None:
        self._counted: dict[str, _Counted] = {}

    def count(self, claimant: Claimant) -> None:
        """Count a call."""
        counted = self._counted.get(claimant.network)
        if counted is None:
            if len(self._counted) >= MAX_NETWORKS:
                self._drop_rarer_half()
            self._counted[claimant.network] = _Counted(1, claimant, 1)
            return
        counted.calls += 1
        if counted.claimant == claimant:
            counted.lead += 1
        elif counted.lead > 0:
            counted.lead -= 1
        else:
            counted.claimant, counted.lead = claimant, 1

    def _drop_rarer_half(self) -> None:
        busiest = sorted(self._counted.items(), key=lambda item: -item[1].calls)
        self._counted = dict(busiest[: MAX_NETWORKS // 2])

    def worst(self) -> list[dict[str, Any]]:
        """The `SHOWN` networks with most calls, as values of JSON."""
        by_calls = sorted(
            self._counted.values(), key=lambda counted: (-counted.calls, counted.claimant.network)
        )
        return [
            {
                "network": counted.claimant.network,
                "agent": counted.claimant.agent if counted.calls >= AGENT_FROM else "",
                "calls": counted.calls,
                "device_from": counted.claimant.device_from,
            }
            for counted in by_calls[:SHOWN]
        ]


def claimant_of(device: Device, call: Call, of_dialect: DeviceFrom | None) -> Claimant | None:
    """The claimant of a call; None if the call claims nothing, or its address is unknown.

    Args:
        of_dialect: the place of the device's address in calls of the dialect's servers.
    """
    if device.caller is None or not device.ignored or device.perhaps_itself:
        return None
    match = _AGENT.match(device.user_agent)
    agent = match.group().strip() if match else ""
    from_headers = "x-device-ip" in call.headers or "x-device-user-agent" in call.headers
    device_from: DeviceFrom = "x-device" if from_headers else of_dialect or "query"
    return Claimant(_network(device.caller), agent, device_from)


@lru_cache(_MAX_KNOWN)
def _network(address: Address) -> str:
    return str(
        ip_network(f"{address}/{_PREFIXES[4 if isinstance(address, IPv4Address) else 6]}", strict=False)
    )
