"""Callers, and the addresses of listeners' devices: tokens, trusted networks, forwarded addresses.

An address is believed as far as its sender is. `X-Forwarded-For` is read from the right, through the
operator's own proxies. A caller's claim about another device counts only if that caller has a token or stands
in a trusted network.
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
Right = Literal["write", "debug", "tag", "read"]
Basis = Literal["transport", "trusted", "claimed"]
Grade = Literal["device", "masked", "none"]

ADDRESS_HEADERS: Final = ("x-forwarded-for", "x-device-ip")
"""Headers with the address that a call is made for. A door refuses a call in which one of them cannot be
read.
"""
MAX_FORWARDED: Final = 32
"""The greatest number of addresses of `X-Forwarded-For` that are read, from the right."""
LONGEST_AGENT: Final = 1_024
_LONGEST_ADDRESS: Final = 64
MAX_ADDRESSES: Final = 16_384
"""The greatest number of remembered addresses: all pixels of a play come from the same one."""
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
    """A caller that the operator knows.

    Args:
        sha256: of the secret, in hexadecimal.
        campaigns: those that it may write for; empty for all.
        device_from: where its calls have the device's address; None leaves it to the dialect.
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
        """True if this caller's own word on consent counts: a writer's, or a trusted network's."""
        return self.network or "write" in self.rights


@dataclass(slots=True)  # `frozen` would triple the time of making one
class Device:
    """The listener's device, as far as it is known.

    Attributes:
        address: None if it is unknown.
        grade: `device`: whole; `masked`: without its last part; `none`.
        basis: the party whose word it is.
        source: the part of the call that it was taken from.
        ignored: whether a claim was ignored, since the caller may not make it.
        caller: the address that the call came from, by which it is judged; None if unknown.
        perhaps_itself: whether all that makes it a claim is an address of the other version of IP: a device
            may have both, so that this is no reach, and no server. The same where a claim cannot be read.
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
        forwarded: without the addresses that our proxies wrote, the caller's among them.
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
    """The callers that the operator knows.

    Args:
        tokens: by name.
        proxies: networks of the operator's own proxies and balancers.
        servers: networks of known servers, with where their calls have the device's address.
    """

    tokens: Mapping[str, Token] = field(default_factory=dict)
    proxies: Sequence[Network] = ()
    servers: Sequence[tuple[Network, DeviceFrom]] = ()
    _remembered: Callable[[str, str], Reached] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_remembered", lru_cache(MAX_ADDRESSES)(self._reached))

    def caller_of(self, headers: Mapping[str, str], transport: Address | None) -> Caller:
        """Identify the caller by its token, else by its network; constant time in the secret."""
        shown = headers.get("authorization", "")
        if not shown.isascii():  # it is there, and no token that is known
            return Caller(refused=True)
        scheme, _, credentials = shown.partition(" ")
        if scheme.lower() == "bearer":
            name, _, secret = credentials.strip().partition(".")
            token = self.tokens.get(name)
            expected = token.sha256 if token else "0" * 64
            right = compare_digest(sha256(secret.encode(errors="replace")).hexdigest(), expected)
            if token is None or not right:
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
        """The caller that reached our proxies: the first address from the right that is none of our
        proxies'.
        """
        forwarded = headers.get("x-forwarded-for", "")
        if len(forwarded) <= _LONGEST_REMEMBERED:  # all pixels of a play come by the same addresses
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
        of_dialect, masked: where this dialect's servers have it, for a caller without a setting of its own.
        unread: whether one of these parameters cannot be read: then the device is unknown.
    """
    agent = headers.get("user-agent", "")[:LONGEST_AGENT]
    transport = reached.address
    if caller.trusted:
        where = caller.device_from or of_dialect or _usual(headers)
        if where == "transport":
            return _graded(transport, agent, caller.masked or masked, "transport")
        address, device_agent, source = _device_in_call(where, reached.forwarded, headers, parameters)
        if unread and where == "query":
            return Device(None, device_agent[:LONGEST_AGENT] or NOT_READ, "none", "trusted", source)
        return _graded(parsed(address), device_agent[:LONGEST_AGENT], caller.masked or masked, source)
    if not (
        unread
        or not parameters.keys().isdisjoint(("ip", "user_agent", "server_side"))
        or not headers.keys().isdisjoint(("x-device-ip", "x-device-user-agent"))
        or of_dialect in _FORWARDED
    ):  # most calls claim nothing
        return _itself(reached, agent)
    named = parsed(parameters.get("ip", ""))
    apart, unread = _is_apart(named, transport), unread or (named is None and bool(parameters.get("ip")))
    # Each of these makes it a claim by itself, so that no further one can undo it.
    server = bool(
        headers.get("x-device-ip")
        or headers.get("x-device-user-agent")
        or parameters.get("server_side") in _SERVER_SIDE
        or (apart and type(named) is type(transport))
        or _is_another_agent(parameters.get("user_agent", ""), agent)
        or (of_dialect in _FORWARDED and _forwards(reached))
    )
    if server or apart or unread:
        # A server speaks for a device, and may not: its own address is no listener's.
        return Device(None, agent, "none", "claimed", "nobody", True, transport, not server)
    return _itself(reached, agent)


def _itself(reached: Reached, agent: str) -> Device:
    """The device of a call that speaks for no other device."""
    grade: Grade = "none" if reached.public is None else "device"
    return Device(reached.public, agent, grade, "transport", "transport", caller=reached.address)


def _forwards(reached: Reached) -> bool:
    """True if a call forwards another address, or came through a proxy that may have dropped one.

    With a vendor whose servers forward listeners such a call is a server's.
    """
    hops = reached.forwarded.split(",", MAX_FORWARDED) if reached.forwarded else []
    return (
        reached.behind
        or len(hops) > MAX_FORWARDED
        or any(_is_apart(parsed(hop), reached.address) for hop in hops)
    )


def _is_apart(address: Address | None, transport: Address | None) -> bool:
    """True if an address in a call is of another network than the call.

    A private address, as a player in a home network may send, is not.
    """
    return (
        address is not None
        and is_public(address)
        and transport is not None
        and star(address) != star(transport)
    )


def _is_another_agent(device_agent: str, agent: str) -> bool:
    """True if a user agent in a call is another than the call's own, however it is encoded.

    An unreadable agent of the call's own is not compared.
    """
    return (
        bool(device_agent)
        and device_agent != agent
        and agent.isascii()
        and _bare(device_agent) != _bare(agent)
    )


def _bare(agent: str) -> str:
    return " ".join(decoded(agent[:LONGEST_AGENT]).replace("+", " ").split())


def _usual(headers: Mapping[str, str]) -> DeviceFrom:
    """The device's place in a trusted server's call that does not name the place: never the server's own
    address.
    """
    return "x-device" if "x-device-ip" in headers or "x-device-user-agent" in headers else "query"


def _device_in_call(
    where: DeviceFrom, forwarded: str, headers: Mapping[str, str], parameters: Mapping[str, str]
) -> tuple[str, str, str]:
    """The device's address and user agent as a trusted caller sends them, and the place where they stand.

    A host that forwards the address in `X-Forwarded-For` forwards the listener's own user agent. Without that
    header the user agent is the server's, and is not used.
    """
    if where == "x-device":
        return headers.get("x-device-ip", ""), headers.get("x-device-user-agent", ""), "x-device-ip"
    if where == "query":
        return parameters.get("ip", ""), parameters.get("user_agent", ""), "ip"
    place = forwarded.split(",", 1)[0] if where == "xff-first" else forwarded.rsplit(",", 1)[-1]
    return place, headers.get("user-agent", "") if forwarded else "", "x-forwarded-for"


def _graded(address: Address | None, agent: str, masked: bool, source: str) -> Device:
    if address is None or not is_public(address):
        return Device(None, agent, "none", "trusted", source)
    grade: Grade = "masked" if masked or _looks_masked(address) else "device"
    return Device(address, agent, grade, "trusted", source)


def _looks_masked(address: Address) -> bool:
    """True if the last part of an IPv4 address is 0: no device has such an address, so it was masked."""
    return isinstance(address, IPv4Address) and int(address) & 0xFF == 0


def parsed(text: str) -> Address | None:
    """An address, or None.

    IPv4 in IPv6 is the IPv4 address. A port or brackets are no part of it. Text after a colon that is no port
    makes it no address.
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
    """True if an address can be a listener's: no private, loopback, shared or documentation one."""
    return address.is_global and not address.is_multicast and address not in _SHARED


def star(address: Address) -> bytes:
    """An address as households have it: an IPv4 address, or the first 64 bits of an IPv6 one."""
    return address.packed if isinstance(address, IPv4Address) else address.packed[:8]


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse networks.

    Raises:
        ValueError: one is none.
    """
    return tuple(ip_network(text, strict=False) for text in texts)
