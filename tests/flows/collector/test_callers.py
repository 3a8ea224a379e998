"""Callers: who is believed, and what forged headers are worth."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from collector_support import HOME, PLAYER, SECRET, call, token, understanding, usual

from connectors.http_server import NOT_ASCII
from flows.collector.callers import Callers, is_public, networks, parsed
from flows.collector.understand import Understanding

PROXY, SERVER, STRANGER, ELSE = "10.0.0.1", "198.51.100.7", "35.180.1.1", "9.9.9.9"
OVERCAST = "Overcast/3.0"
FIELDS = {"listener_id", "client_id", "household_id"}


def door(**more: Any) -> Understanding:
    known = {
        "header": token(rights=frozenset({"write"}), device_from="x-device"),
        "first": token(device_from="xff-first"),
        "last": token(device_from="xff-last"),
        "query": token(device_from="query"),
        "itself": token(device_from="transport"),
        "usual": token(),
        "masking": token(device_from="x-device", masked=True),
        "narrow": token(rights=frozenset({"write"}), campaigns=frozenset({"spring"})),
    }
    servers = [(networks(["198.51.100.0/24"])[0], "xff-first")]
    return understanding(callers=Callers(known, networks(["10.0.0.0/8", "fd00::/8"]), servers), **more)


def bearer(name: str, **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}.{SECRET}"} | {
        key.replace("_", "-"): headers[key] for key in headers
    }


def household(peer: str, headers: dict[str, str], **parameters: str) -> Any:
    return door().pixel(call(usual(**parameters), headers=headers, peer=peer)).event.get("household_id")


OURS = household(HOME, {})
UA = {"x_device_user_agent": PLAYER}


@pytest.mark.parametrize(
    ("peer", "headers", "parameters"),
    [
        (HOME, {}, {}),
        (HOME, {"x-forwarded-for": ELSE}, {}),
        (HOME, {"forwarded": f"for={ELSE}", "x-real-ip": ELSE, "cf-connecting-ip": ELSE}, {}),
        (HOME, {}, {"ip": "192.168.0.7"}),
        (f"::ffff:{HOME}", {}, {}),
        (PROXY, {"x-forwarded-for": HOME}, {}),
        (PROXY, {"x-forwarded-for": f"{ELSE}, {HOME}"}, {}),
        (PROXY, {"x-forwarded-for": f"{ELSE}, {HOME}, 10.9.9.9, fd00::1"}, {}),
        (PROXY, {"x-forwarded-for": f"{HOME}:4711"}, {}),
        (PROXY, {"x-forwarded-for": ",".join([ELSE] * 5_000) + f",{HOME}"}, {}),
        (SERVER, {"x-forwarded-for": f"{HOME}, {ELSE}"}, {}),
        (STRANGER, bearer("header", x_device_ip=HOME, **UA), {}),
        (STRANGER, bearer("first", x_forwarded_for=f"{HOME}, {ELSE}"), {}),
        (STRANGER, bearer("last", x_forwarded_for=f"{ELSE}, {HOME}"), {}),
        (PROXY, bearer("first", x_forwarded_for=f"{HOME}, {ELSE}, {STRANGER}"), {}),
        (PROXY, bearer("first", x_forwarded_for=f"{HOME}, {', '.join([ELSE] * 50)}, {STRANGER}"), {}),
        (PROXY, bearer("last", x_forwarded_for=f"{ELSE}, {HOME}, {STRANGER}"), {}),
        (PROXY, bearer("last", x_forwarded_for=f"{ELSE}, {HOME}, {STRANGER}, 10.9.9.9, fd00::1"), {}),
        (PROXY, {"x-forwarded-for": f"{HOME}, {ELSE}, {SERVER}"}, {}),
        (STRANGER, bearer("query"), {"ip": HOME, "ua": PLAYER}),
        (HOME, bearer("itself"), {"ip": ELSE}),
        (STRANGER, bearer("usual", x_device_ip=HOME, **UA), {"ip": ELSE}),
        (STRANGER, bearer("usual"), {"ip": HOME}),
    ],
)
def test_a_device_is_read_from_its_callers_header(
    peer: str, headers: dict[str, str], parameters: dict[str, str]
) -> None:
    assert household(peer, headers, **parameters) == OURS


@pytest.mark.parametrize(
    ("peer", "headers", "parameters"),
    [
        (STRANGER, {"x-device-ip": HOME}, {}),
        (STRANGER, {"x-device-ip": HOME, "x-device-user-agent": PLAYER}, {}),
        (STRANGER, {"x-device-user-agent": PLAYER}, {}),
        (STRANGER, {}, {"ip": HOME, "ua": PLAYER}),
        (STRANGER, {}, {"ua": OVERCAST}),
        (STRANGER, {"user-agent": "AcastServer/1.0"}, {"ua": OVERCAST, "ip": "(acast-ip)"}),
        (STRANGER, {"user-agent": ""}, {"ua": OVERCAST}),
        (STRANGER, {}, {"ua": OVERCAST, "ip": "192.168.1.7"}),
        (STRANGER, {}, {"ss": "1"}),
        (STRANGER, {}, {"ss": "2"}),
        (HOME, {}, {"ua": OVERCAST, "ip": HOME}),  # no further claim undoes one
        (HOME, {}, {"ss": "1", "ip": HOME, "ua": PLAYER}),
        (STRANGER, {"authorization": "Bearer header.guessed", "x-device-ip": HOME}, {}),
        (STRANGER, {"authorization": f"Bearer nobody.{SECRET}", "x-device-ip": HOME}, {}),
        (STRANGER, {"authorization": f"Basic header.{SECRET}", "x-device-ip": HOME}, {}),
        (STRANGER, {"authorization": "Bearer header", "x-device-ip": HOME}, {}),
        (STRANGER, {"x-device-ip": HOME}, {"token": f"header.{SECRET}"}),
        (PROXY, {"x-forwarded-for": STRANGER, "x-device-ip": HOME}, {}),
    ],
)
def test_a_strangers_device_claim_is_counted_and_ignored(
    peer: str, headers: dict[str, str], parameters: dict[str, str]
) -> None:
    told: list[tuple[str, str, str]] = []
    asked = call(usual(**parameters), headers=headers, peer=peer)
    event = door(on_cleaning=lambda *what: told.append(what)).pixel(asked).event
    assert event["device_basis"] == "claimed"
    assert not FIELDS & set(event)
    assert ("native", "ip", "claim_ignored") in told


@pytest.mark.parametrize(
    ("agent", "parameters"),
    [
        (PLAYER, {"ua": PLAYER}),
        (PLAYER, {"ua": quote(PLAYER)}),  # encoded twice
        ("My%20App/1 CFNetwork", {"ua": "My%20App/1 CFNetwork"}),
        ("Podcasts/1 (+http://x.example)", {"ua": "Podcasts/1 ( http://x.example)"}),
        (OVERCAST + "x" * 2_000, {"ua": OVERCAST + "x" * 2_000}),
        (PLAYER, {"ua": "[DEVICEUA]"}),
        (PLAYER, {"ua": "-1"}),
        (PLAYER, {}),
        (PLAYER, {"ip": HOME, "ss": "0"}),
    ],
)
def test_a_player_with_its_own_user_agent_is_a_device(agent: str, parameters: dict[str, str]) -> None:
    event = door().pixel(call(usual(**parameters), headers={"user-agent": agent})).event
    assert event["device_basis"] == "transport"
    assert set(event) >= FIELDS


def test_a_server_with_only_an_agent_is_judged_by_its_own() -> None:
    for agent, reason in (("Go-http-client/1.1", "crawler_list"), ("AcmeInserter/2", "unverified_server")):
        made = call(usual(ua=OVERCAST), headers={"user-agent": agent}, peer=STRANGER)
        event = door().pixel(made).event
        assert (event["device_basis"], event.get("invalid_traffic")) == ("claimed", reason)
        assert "device_confirmed" not in event
        trusted = call(usual(ua=OVERCAST), headers=bearer("usual") | {"user-agent": agent}, peer=STRANGER)
        believed = door().pixel(trusted).event
        assert (believed["device_basis"], believed.get("invalid_traffic")) == ("trusted", None)


@pytest.mark.parametrize(("peer", "told"), [(HOME, "2a02:c7c::1"), ("2a02:c7c::1", HOME)])
def test_a_device_with_both_ip_versions_is_only_claimed(peer: str, told: str) -> None:
    for more, reason in (
        ({}, None),
        ({"ss": "1"}, "unverified_server"),
        ({"ua": OVERCAST}, "unverified_server"),
    ):
        event = door().pixel(call(usual(ip=told, **more), peer=peer)).event
        assert (event["device_basis"], event.get("invalid_traffic")) == ("claimed", reason)
        assert not {*FIELDS, "device_confirmed"} & set(event)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ss=0", "ss=1"),
        ("ip=" + HOME, "ip=" + ELSE),
        ("ip=" + HOME, "ip=192.168.0.7"),
        ("ua=" + quote(PLAYER), "ua=x"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_device_is_only_claimed_by_a_call_for_two(first: str, second: str, method: str) -> None:
    for said in (f"{first}&{second}", f"{second}&{first}"):
        query = f"e=start&pl=a&{said}"
        made = call(query) if method == "GET" else call(method="POST", body=query.encode())
        assert door().pixel(made).event["device_basis"] == "claimed"
        emptied = f"e=start&pl=a&ss=&{said}&ss=0"
        assert door().pixel(call(emptied)).event["device_basis"] == "claimed"
    assert door().pixel(call(f"e=start&pl=a&{first}&{first}")).event["device_basis"] == "transport"


@pytest.mark.parametrize(
    "forwarded", ["", HOME, "unknown", "10.1.1.1", f"{ELSE}, {HOME}", ",".join([HOME] * 99)]
)
def test_every_call_in_a_server_dialect_counts_as_proxied(forwarded: str) -> None:
    written = f"{forwarded}, {HOME}" if forwarded else HOME
    event = door().pixel(call(usual(), "/p/prx", {"x-forwarded-for": written}, PROXY)).event
    assert (event["device_basis"], event["invalid_traffic"]) == ("claimed", "unverified_server")


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        (STRANGER, bearer("header")),
        (STRANGER, bearer("usual")),
        (STRANGER, bearer("header", x_device_ip="192.168.1.1", **UA)),
        (STRANGER, bearer("header", x_device_ip="here", **UA)),
        (STRANGER, bearer("first")),
        (SERVER, {}),
        (PROXY, bearer("first", x_forwarded_for=STRANGER)),
        (PROXY, bearer("last", x_forwarded_for=STRANGER)),
        (PROXY, bearer("first", x_forwarded_for=f"{STRANGER}, 10.9.9.9")),
        (PROXY, bearer("last", x_forwarded_for=f"{STRANGER}, 10.9.9.9")),
        (PROXY, bearer("last", x_forwarded_for=f"unknown, {STRANGER}")),
        (PROXY, {"x-forwarded-for": SERVER}),
        (PROXY, {"x-forwarded-for": f"{SERVER}, 10.9.9.9"}),
        (PROXY, {"x-forwarded-for": "10.2.2.2"}),
        (PROXY, {"x-forwarded-for": "unknown"}),
        (PROXY, {}),
        ("127.0.0.1", {}),
        ("", {}),
    ],
)
def test_a_server_without_a_device_has_no_household(peer: str, headers: dict[str, str]) -> None:
    assert household(peer, headers) is None


@pytest.mark.parametrize("headers", [bearer("first"), bearer("last"), {}])
def test_a_proxied_server_without_a_device_has_no_user_agent(
    headers: dict[str, str],
) -> None:
    asked = headers | {"x-forwarded-for": STRANGER if headers else SERVER, "user-agent": "Go-http-client/1.1"}
    event = door().pixel(call(usual(), headers=asked, peer=PROXY)).event
    assert (event["device_basis"], event.get("invalid_traffic")) == ("trusted", None)
    assert FIELDS & set(event) == {"listener_id"}


@pytest.mark.parametrize("forwarded", [STRANGER, f"{STRANGER}, 10.9.9.9", f"{HOME}, {STRANGER}"])
def test_a_proxied_stranger_in_a_server_dialect_has_no_device(forwarded: str) -> None:
    asked = call(usual(), path="/p/prx", headers={"x-forwarded-for": forwarded}, peer=PROXY)
    event = door().pixel(asked).event
    assert event["device_basis"] == "claimed"
    assert not {*FIELDS, "device_confirmed"} & set(event)


def test_a_masked_address_is_a_client_and_no_household() -> None:
    for headers in (
        bearer("header", x_device_ip="81.2.69.0", **UA),
        bearer("masking", x_device_ip=HOME, **UA),
    ):
        event = door().pixel(call(usual(), headers=headers, peer=STRANGER)).event
        assert FIELDS & set(event) == {"listener_id", "client_id"}


def test_a_token_writes_for_its_campaigns_alone() -> None:
    for campaign, reason in (("spring", ""), ("summer", "unsigned"), ("", "unsigned")):
        assert (
            door(placements="signed").pixel(call(usual(cm=campaign), headers=bearer("narrow"))).reason
            == reason
        )


@pytest.mark.parametrize("parameters", [{}, {"ua": "\u0420\u0430\u0434\u0438\u043e/1.2"}])
def test_an_unreadable_user_agent_counts_as_a_listeners(
    parameters: dict[str, str],
) -> None:
    told: list[tuple[str, str, str]] = []
    asked = call(usual(**parameters), headers={"user-agent": NOT_ASCII})
    event = door(on_cleaning=lambda *what: told.append(what)).pixel(asked).event
    assert (event["device_basis"], event.get("invalid_traffic")) == ("transport", None)
    assert set(event) >= FIELDS
    assert ("native", "user_agent", "unreadable") in told


def test_an_unreadable_token_is_unknown() -> None:
    told: list[tuple[str, str, str]] = []
    asked = call(usual(consent="1", gdpr_consent=""), headers={"authorization": NOT_ASCII}, peer=SERVER)
    event = door(on_cleaning=lambda *what: told.append(what)).pixel(asked).event
    assert event["consent"] is False
    assert ("native", "token", "refused") in told


@pytest.mark.parametrize(
    ("text", "public"),
    [
        *((HOME, True), ("2a02:c7c::1", True), ("10.1.1.1", False), ("100.64.0.1", False)),
        *(("127.0.0.1", False), ("192.0.2.1", False), ("169.254.1.1", False), ("224.0.0.1", False)),
        *(("fe80::1%eth0", False), ("::1", False), ("2001:db8::1", False), ("0.0.0.0", False)),
    ],
)
def test_an_impossible_listener_address_is_absent(text: str, public: bool) -> None:
    address = parsed(text)
    assert address is not None
    assert is_public(address) is public


def test_a_port_is_digits_alone() -> None:
    for text in (f"{HOME}:4431", "[2a02:c7c::1]:4431", "[2a02:c7c::1]"):
        assert parsed(text) is not None
    for text in (
        f"{HOME}:ab12",
        f"{HOME}:",
        f"{HOME}:123456",
        f"{HOME}:\u0664",
        "[2a02:c7c::1]:ab",
        "[::1]x",
    ):
        assert parsed(text) is None


@pytest.mark.parametrize("text", ["", "here", "1.2.3", "1.2.3.4.5", "::g", "[::1", "x" * 5_000, "\udcff"])
def test_an_invalid_address_is_absent_and_raises_nothing(text: str) -> None:
    parsed(text)
    assert household(PROXY, {"x-forwarded-for": text}) is None
