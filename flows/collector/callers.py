"""Callers, and the addresses of listeners' devices: tokens, trusted networks, forwarded addresses.

`X-Forwarded-For` is read from the right, through the operator's own proxies. A caller's claim about another
device counts only if that caller has a token or calls from a trusted network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal, NamedTuple

from flows.collector.query import decoded

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
DeviceFrom = Literal["transport", "x-device", "xff-first", "xff-last", "query"]
Right = Literal["write", "debug", "tag"]
Basis = Literal["transport", "trusted", "claimed"]
Grade = Literal["device", "masked", "none"]

ADDRESS_HEADERS: Final = ("x-forwarded-for", "x-device-ip")
"""Headers with the address for which a call is made. A door refuses a call with an unreadable one."""
MAX_FORWARDED: Final = 32
"""The greatest number of addresses of `X-Forwarded-For` that are read, from the right."""
LONGEST_AGENT: Final = 1_024
"""The greatest length of a user agent; the rest is not read."""
_LONGEST_ADDRESS: Final = 64
MAX_ADDRESSES: Final = 16_384
"""The greatest number of remembered addresses: all pixels of a play come from the same address."""
_LONGEST_REMEMBERED: Final = 128
"""The greatest length of `X-Forwarded-For` that is remembered."""
_PORT: Final = re.compile(r":\d{1,5}", re.ASCII)
_FORWARDED: Final = ("xff-first", "xff-last")
_SERVER_SIDE: Final = ("1", "2")
NOT_READ: Final = "\ufffd"
"""The user agent of a device whose user agent a caller sent unreadably."""
_SHARED: Final = ip_network("100.64.0.0/10")
"""Addresses of carriers' translators, which `ipaddress` does not call private."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that the operator has given to a caller.

    Args:
        sha256: SHA-256 of the secret, in hexadecimal.
        campaigns: the campaigns for which it may write; empty for all.
        device_from: the place of the device's address in its calls; None leaves the place to the dialect.
        masked: whether that address lacks its last part.
    """

    sha256: str
    rights: frozenset[Right] = frozenset()
    campaigns: frozenset[str] = frozenset()
    device_from: DeviceFrom | None = None
    masked: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller, as its token or its network identifies it.

    A caller is `trusted` by a token or, with `network`, by its network. A caller with an unknown token is
    `refused`.
    """

    name: str = ""
    rights: frozenset[Right] = frozenset()
    campaigns: frozenset[str] = frozenset()
    trusted: bool = False
    refused: bool = False
    device_from: DeviceFrom | None = None
    masked: bool = False
    network: bool = False

    @property
    def may_say_consent(self) -> bool:
        """True if the parameter `consent` counts in calls of this caller: a writer, or a trusted network."""
        return self.network or "write" in self.rights


@dataclass(slots=True)  # `frozen` would triple the time of making one
class Device:
    """The listener's device, as far as it is known.

    Attributes:
        address: None if it is unknown.
        grade: of the address: `device`: whole; `masked`: without its last part; `none`.
        basis: `transport`: the connection; `trusted`: a caller with the right; `claimed`: another caller.
        source: the part of the call from which the address was taken.
        ignored: whether a claim was ignored, since the caller may not make it.
        caller: the address from which the call came, by which it is judged; None if unknown.
        perhaps_itself: whether the only sign of a claim is an address of the other IP version, or a claim
            that cannot be read. A device may have both versions: the call then gives no reach, and is no
            server's.
    """

    address: Address | None
    user_agent: str
    grade: Grade
    basis: Basis
    source: str
    ignored: bool = False
    caller: Address | None = None
    perhaps_itself: bool = False


class Reached(NamedTuple):
    """The caller that reached our own proxies, and the part of `X-Forwarded-For` that the caller itself
    wrote.

    Attributes:
        address: the caller's; None if it cannot be read.
        forwarded: the header without the addresses that our proxies wrote, which include the caller's.
        behind: whether our proxies wrote any.
        public: the address if it can be a listener's.
    """

    address: Address | None
    forwarded: str
    behind: bool
    public: Address | None = None


NOBODY: Final = Caller()


@dataclass(frozen=True)
class Callers:
    """The callers that the operator has listed.

    Args:
        tokens: tokens by name.
        proxies: networks of the operator's own proxies and balancers.
        servers: networks of known servers, with the place of the device's address in their calls.
    """

    tokens: Mapping[str, Token] = field(default_factory=dict)
    proxies: Sequence[Network] = ()
    servers: Sequence[tuple[Network, DeviceFrom]] = ()
    _remembered: Callable[[str, str], Reached] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_remembered", lru_cache(MAX_ADDRESSES)(self._reached))

    def caller_of(self, headers: Mapping[str, str], transport: Address | None) -> Caller:
        """Identify the caller by its token, else by its network; constant time in the secret."""
        authorization = headers.get("authorization", "")
        if not authorization.isascii():  # no listed token has such a name or secret
            return Caller(refused=True)
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() == "bearer":
            name, _, secret = credentials.strip().partition(".")
            token = self.tokens.get(name)
            expected = token.sha256 if token else "0" * 64
            secret_matches = compare_digest(sha256(secret.encode(errors="replace")).hexdigest(), expected)
            if token is None or not secret_matches:
                return Caller(refused=True)
            return Caller(name, token.rights, token.campaigns, True, False, token.device_from, token.masked)
        if transport is not None:
            for network, device_from in self.servers:
                if transport in network:
                    return Caller(str(network), trusted=True, device_from=device_from, network=True)
        return NOBODY

    def transport(self, headers: Mapping[str, str], peer: str) -> Address | None:
        """The address of the caller that reached our own proxies."""
        return self.reached(headers, peer).address

    def reached(self, headers: Mapping[str, str], peer: str) -> Reached:
        """The caller that reached our proxies: the first address from the right that is no proxy's."""
        forwarded = headers.get("x-forwarded-for", "")
        if len(forwarded) <= _LONGEST_REMEMBERED:  # all pixels of a play have the same addresses
            return self._remembered(peer, forwarded)
        return self._reached(peer, forwarded)

    def _reached(self, peer: str, forwarded: str) -> Reached:
        address = parsed(peer)
        hops = forwarded.rsplit(",", MAX_FORWARDED)
        written = 0
        while address is not None and written < min(len(hops), MAX_FORWARDED) and self._is_proxy(address):
            written += 1
            address = parsed(hops[-written])
        public = address if address is not None and is_public(address) else None
        return Reached(address, ",".join(hops[: len(hops) - written]), written > 0, public)

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self.proxies)


def device(
    caller: Caller,
    reached: Reached,
    headers: Mapping[str, str],
    parameters: Mapping[str, str],
    of_dialect: DeviceFrom | None = None,
    masked: bool = False,
    unread: bool = False,
) -> Device:
    """The listener's device in a call.

    Args:
        parameters: `ip`, `user_agent` and `server_side` of the call, cleaned.
        of_dialect, masked: the place of the device's address in calls of this dialect's servers, and whether
            it lacks its last part; for a caller without a setting of its own.
        unread: whether one of these parameters cannot be read: then the device is unknown.
    """
    agent = headers.get("user-agent", "")[:LONGEST_AGENT]
    transport = reached.address
    if caller.trusted:
        place = caller.device_from or of_dialect or _usual_place(headers)
        if place == "transport":
            return _graded(transport, agent, caller.masked or masked, "transport")
        address, device_agent, source = _device_in_call(place, reached.forwarded, headers, parameters)
        if unread and place == "query":
            return Device(None, device_agent[:LONGEST_AGENT] or NOT_READ, "none", "trusted", source)
        return _graded(parsed(address), device_agent[:LONGEST_AGENT], caller.masked or masked, source)
    if not (
        unread
        or not parameters.keys().isdisjoint(("ip", "user_agent", "server_side"))
        or not headers.keys().isdisjoint(("x-device-ip", "x-device-user-agent"))
        or of_dialect in _FORWARDED
    ):  # most calls claim nothing
        return _own_device(reached, agent)
    named = parsed(parameters.get("ip", ""))
    apart, unread = _is_apart(named, transport), unread or (named is None and bool(parameters.get("ip")))
    # Each of these alone makes the call a server's claim, and no other parameter undoes that.
    server = bool(
        headers.get("x-device-ip")
        or headers.get("x-device-user-agent")
        or parameters.get("server_side") in _SERVER_SIDE
        or (apart and type(named) is type(transport))
        or _is_another_agent(parameters.get("user_agent", ""), agent)
        or (of_dialect in _FORWARDED and _forwards(reached))
    )
    if server or apart or unread:
        # The caller names a device and has no right to; the caller's own address is no listener's.
        return Device(None, agent, "none", "claimed", "nobody", True, transport, not server)
    return _own_device(reached, agent)


def _own_device(reached: Reached, agent: str) -> Device:
    """The device of a call that names no other device."""
    grade: Grade = "none" if reached.public is None else "device"
    return Device(reached.public, agent, grade, "transport", "transport", caller=reached.address)


def _forwards(reached: Reached) -> bool:
    """True if a call forwards another address, or came through a proxy that may have dropped one.

    In the dialect of a vendor whose servers forward listeners' addresses, such a call is a server's.
    """
    hops = reached.forwarded.split(",", MAX_FORWARDED) if reached.forwarded else []
    return (
        reached.behind
        or len(hops) > MAX_FORWARDED
        or any(_is_apart(parsed(hop), reached.address) for hop in hops)
    )


def _is_apart(address: Address | None, transport: Address | None) -> bool:
    """True if an address in a call is of another network than the call itself.

    A private address is not: a player in a home network may send it.
    """
    return (
        address is not None
        and is_public(address)
        and transport is not None
        and household_part(address) != household_part(transport)
    )


def _is_another_agent(device_agent: str, agent: str) -> bool:
    """True if a user agent in a call differs from the call's own header, however it is encoded.

    A header that cannot be read is not compared.
    """
    return (
        bool(device_agent)
        and device_agent != agent
        and agent.isascii()
        and _bare(device_agent) != _bare(agent)
    )


def _bare(agent: str) -> str:
    return " ".join(decoded(agent[:LONGEST_AGENT]).replace("+", " ").split())


def _usual_place(headers: Mapping[str, str]) -> DeviceFrom:
    """The device's place in a trusted server's call that does not name the place: never the server's own
    address.
    """
    return "x-device" if "x-device-ip" in headers or "x-device-user-agent" in headers else "query"


def _device_in_call(
    place: DeviceFrom, forwarded: str, headers: Mapping[str, str], parameters: Mapping[str, str]
) -> tuple[str, str, str]:
    """The device's address and user agent as a trusted caller sends them, and the source of the address.

    A host that forwards the address in `X-Forwarded-For` forwards the listener's own user agent. Without that
    header the user agent is the server's, and is not used.
    """
    if place == "x-device":
        return headers.get("x-device-ip", ""), headers.get("x-device-user-agent", ""), "x-device-ip"
    if place == "query":
        return parameters.get("ip", ""), parameters.get("user_agent", ""), "ip"
    address = forwarded.split(",", 1)[0] if place == "xff-first" else forwarded.rsplit(",", 1)[-1]
    return address, headers.get("user-agent", "") if forwarded else "", "x-forwarded-for"


def _graded(address: Address | None, agent: str, masked: bool, source: str) -> Device:
    if address is None or not is_public(address):
        return Device(None, agent, "none", "trusted", source)
    grade: Grade = "masked" if masked or _looks_masked(address) else "device"
    return Device(address, agent, grade, "trusted", source)


def _looks_masked(address: Address) -> bool:
    """True if the last part of an IPv4 address is 0: no device has such an address, so it was masked."""
    return isinstance(address, IPv4Address) and int(address) & 0xFF == 0


def parsed(text: str) -> Address | None:
    """Parse an address; None for any other text.

    An IPv4 address in IPv6 form becomes IPv4. A port and brackets are left out. A text with anything else
    after a colon is no address.
    """
    text = text.strip()
    return _parsed(text) if text and len(text) <= _LONGEST_ADDRESS else None


@lru_cache(MAX_ADDRESSES)
def _parsed(text: str) -> Address | None:
    port = ""
    if text.startswith("["):
        text, closed, port = text[1:].partition("]")
        if not closed:  # the bracket may have been a digit
            return None
    elif text.count(":") == 1:
        text, colon, digits = text.partition(":")
        port = colon + digits
    if port and _PORT.fullmatch(port) is None:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))  # without its zone
    return address


@lru_cache(MAX_ADDRESSES)
def is_public(address: Address) -> bool:
    """True if an address can be a listener's: not private, loopback, shared or for documentation."""
    return address.is_global and not address.is_multicast and address not in _SHARED


def household_part(address: Address) -> bytes:
    """The part of an address that a household shares: all of IPv4, or the first 64 bits of IPv6."""
    return address.packed if isinstance(address, IPv4Address) else address.packed[:8]


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse networks.

    Raises:
        ValueError: a text is no network.
    """
    return tuple(ip_network(text, strict=False) for text in texts)
