"""The collector's memory of addresses and devices is bounded and changes no answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from flows.collector import callers, pseudonyms
from flows.collector.callers import MAX_ADDRESSES, Callers, Device, is_public, networks, parsed
from flows.collector.pseudonyms import MAX_DEVICES, Pseudonyms

FLOOD = 100
"""The number of different addresses or devices over the bound."""
ADDRESS = IPv4Address("9.9.9.9")
KEY = b"a key of a test, 16 bytes or more"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Empty the memories of the module, before and after the test."""
    for memory in (callers._parsed, callers.is_public):
        memory.cache_clear()
    yield
    for memory in (callers._parsed, callers.is_public):
        memory.cache_clear()


def remembered(memory: Callable[..., Any]) -> int:
    """The number of remembered answers."""
    return cast(Any, memory).cache_info().currsize


def device(agent: str) -> Device:
    """A device at the same address, with a user agent."""
    return Device(ADDRESS, agent, "device", "transport", "transport")


def test_a_flood_of_callers_is_remembered_up_to_the_bound() -> None:
    known = Callers(proxies=networks(["127.0.0.0/8"]))
    for number in range(MAX_ADDRESSES + FLOOD):
        address = IPv4Address(0x0900_0000 + number)
        assert known.reached({"x-forwarded-for": str(address)}, "127.0.0.1").public == address
    assert remembered(known._remembered) == MAX_ADDRESSES
    assert remembered(callers._parsed) == MAX_ADDRESSES
    assert remembered(callers.is_public) == MAX_ADDRESSES


def test_remembered_invalid_addresses_are_bounded() -> None:
    for number in range(MAX_ADDRESSES + FLOOD):
        assert parsed(f"no address {number}") is None
    assert remembered(callers._parsed) == MAX_ADDRESSES


def test_a_long_forwarded_address_is_read_and_not_remembered() -> None:
    known, longest = Callers(proxies=networks(["127.0.0.0/8"])), callers._LONGEST_REMEMBERED
    for length, expected in ((longest, 1), (longest + 1, 1), (10 * longest, 1)):
        forwarded = str(ADDRESS).rjust(length)
        assert len(forwarded) == length
        assert known.reached({"x-forwarded-for": forwarded}, "127.0.0.1").address == ADDRESS
        assert remembered(known._remembered) == expected


def test_a_text_too_long_for_an_address_is_neither_read_nor_remembered() -> None:
    longest = callers._LONGEST_ADDRESS
    # A zone may be of any length.
    assert parsed("2001:4860::1%".ljust(longest, "z")) is not None
    assert parsed("2001:4860::1%".ljust(longest + 1, "z")) is None
    assert remembered(callers._parsed) == 1


def test_a_remembered_address_is_judged_as_a_new_one() -> None:
    texts = ("9.9.9.9", "[::ffff:9.9.9.9]:80", "10.0.0.1", "100.64.0.1", "224.0.0.1", "::1", "9.9.9.9:x", "a")
    first = [(address := parsed(text), address is not None and is_public(address)) for text in texts]
    second = [(address := parsed(text), address is not None and is_public(address)) for text in texts]
    assert first == second
    assert [public for _, public in first] == [True, True, False, False, False, False, False, False]


def test_a_flood_of_user_agents_is_remembered_up_to_the_bound() -> None:
    of_all = Pseudonyms(KEY, [b"a previous key of a test, too"])
    for number in range(MAX_DEVICES + FLOOD):
        of_all.of_listener(None, device(f"agent {number}"))
    assert remembered(of_all._key._remembered) == MAX_DEVICES
    assert remembered(of_all._previous[0]._remembered) == 0


def test_a_long_user_agent_has_pseudonyms_and_is_not_remembered() -> None:
    of_all, longest = Pseudonyms(KEY), pseudonyms._LONGEST_REMEMBERED
    by_length = {
        length: of_all.of_listener(None, device("a" * length))
        for length in (longest, longest + 1, callers.LONGEST_AGENT)
    }
    assert remembered(of_all._key._remembered) == 1
    assert len({both["client_id"] for both in by_length.values()}) == len(by_length)
    assert len({both["household_id"] for both in by_length.values()}) == 1


def test_a_remembered_device_has_the_pseudonyms_of_a_new_one() -> None:
    warm = Pseudonyms(KEY)
    for agent in ("agent", "agent", "", "another agent"):
        assert warm.of_listener(None, device(agent)) == Pseudonyms(KEY).of_listener(None, device(agent))
