"""The doors: which call is answered how, and that each is in the ledger."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import product
from typing import Any, cast
from urllib.parse import quote

import msgspec
import pytest
from collector_support import HOME, NOW_MS, SECRET, call, understanding, usual
from reader_support import doors_of

from connectors.http_server import NOT_ASCII
from connectors.stream import Messages
from flows.collector.call import Call, Outcome, Understood
from flows.collector.doors import GIF, UNREAD, Answer, Doors
from flows.collector.log import line_of
from flows.collector.store import Store
from flows.intake.decoder import Decoder
from flows.model.catalogue.limits import LIMITS
from flows.model.events import MAX_MESSAGE_BYTES
from flows.settings import load

HASH = sha256(SECRET.encode()).hexdigest()

BEARER = {"authorization": f"Bearer host.{SECRET}"}
TARGET = "https://shop.example/offer"


@dataclass
class Kept:
    """A store that keeps all, or nothing."""

    takes: bool = True
    events: list[Understood] = field(default_factory=list)
    refused: int = 0
    refused_by: Counter[str] = field(default_factory=Counter)

    async def keep(self, understood: Sequence[Understood], received_ms: int) -> bool:
        self.events += understood
        return self.takes or all(one.outcome is not Outcome.STORED for one in understood)

    def refuse(self, events: int, reason: str) -> None:
        self.refused += events
        self.refused_by[reason] += events


@dataclass
class Slow(Kept):
    """A store that waits until it is ready."""

    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep(self, understood: Sequence[Understood], received_ms: int) -> bool:
        await self.ready.wait()
        return await super().keep(understood, received_ms)


def asked(one: Call, kept: Kept | None = None, **values: Any) -> tuple[Answer, Kept]:
    kept = kept or Kept()
    doors = Doors(understanding(), cast(Store, kept), **values)
    return asyncio.run(doors.answer(one)), kept


def headers(answer: Answer) -> Mapping[str, str]:
    return dict(answer.headers)


def test_a_pixel_returns_the_gif_to_any_origin() -> None:
    answer, kept = asked(call(usual()))
    assert (answer.status, answer.body, len(GIF)) == (200, GIF, 43)
    assert [one.outcome for one in kept.events] == [Outcome.STORED]
    said = headers(answer)
    assert said["access-control-allow-origin"] == "*"
    assert said["cross-origin-resource-policy"] == "cross-origin"
    assert "no-store" in said["cache-control"]
    assert "set-cookie" not in said


@pytest.mark.parametrize("path", ["/p", "/p/triton", "/b/triton", "/c"])
def test_an_unstored_call_is_503_but_a_click_is_redirected(path: str) -> None:
    answer, _ = asked(call(usual(u=TARGET), path), Kept(takes=False))
    assert answer.status == (302 if path == "/c" else 503)
    assert path == "/c" or headers(answer)["retry-after"] == "2"


def test_a_rejected_pixel_returns_the_gif_and_tokens_get_the_reason() -> None:
    answer, kept = asked(call(usual(e="no-such")))
    assert (answer.status, answer.body) == (200, GIF)
    assert "x-audiopixel" not in headers(answer)
    told, _ = asked(call(usual(e="no-such"), headers=BEARER))
    assert headers(told)["x-audiopixel"] == "rejected; unknown_event; event=no-such"
    assert [one.outcome for one in kept.events] == [Outcome.REJECTED]


def test_a_head_is_answered_and_not_counted() -> None:
    answer, kept = asked(call(usual(), method="HEAD"))
    assert (answer.status, answer.body) == (200, b"")
    assert [one.outcome for one in kept.events] == [Outcome.NOT_COUNTED]


@pytest.mark.parametrize("other", ["page=3", "source=x", "name=e", ""])
def test_a_click_is_one_whatever_its_other_parameters_are_called(other: str) -> None:
    query = f"{other}&pl=a&u=https%3A%2F%2Fshop.example%2F"
    answer, kept = asked(call(query, "/c"))
    assert answer.status == 302
    assert [one.event["event"] for one in kept.events] == ["click"]
    assert [one.outcome for one in kept.events] == [Outcome.STORED]


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//shop.example/",
        "javascript:alert(1)",
        "https://shop.example\r\nX: y",
        "https://shop.example@evil.example/",
        "",
    ],
)
def test_a_click_to_an_unknown_target_is_400_and_in_the_ledger(target: str) -> None:
    answer, kept = asked(call({"pl": "a", "u": target}, "/c"))
    assert answer.status == 400
    assert "location" not in headers(answer)
    assert [(one.outcome, one.reason) for one in kept.events] == [(Outcome.REJECTED, "unsigned")]


def test_a_non_ascii_target_is_encoded_for_the_header() -> None:
    answer, _ = asked(call({"pl": "a", "u": "https://shop.example/caf\u00e9?r=\ufffd"}, "/c"))
    assert answer.status == 302
    assert headers(answer)["location"] == "https://shop.example/caf%C3%A9?r=%EF%BF%BD"


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_target_keeps_what_is_encoded_in_its_own_query(times: int) -> None:
    target = encoded = "https://shop.example/?next=a%26b%3Dc+d&x=%2525"
    for _ in range(times):
        encoded = quote(encoded, safe="")
    answer, _ = asked(call(f"pl=a&u={encoded}", "/c"))
    assert headers(answer)["location"] == target


@pytest.mark.parametrize(
    ("one", "status"),
    [
        (call(path="/v1/events", method="POST", body=b"[]"), 401),
        (call(path="/v1/events", method="POST", body=b"no", headers=BEARER), 400),
        (call(path="/v1/events", method="POST", body=b"[]", headers=BEARER), 400),
        (call(path="/p", method="POST", body=b"\xff\xfe"), 200),
        (call(path="/p", method="POST", body=b"[" * 100_000), 401),
    ],
)
def test_an_unreadable_call_is_one_event_of_the_ledger(one: Call, status: int) -> None:
    answer, kept = asked(one)
    assert answer.status == status
    assert [understood.outcome for understood in kept.events] == [Outcome.REJECTED]


EVENT = b'{"event":"start","placement_id":"a"}\n'


def events(body: bytes) -> Call:
    return call(path="/v1/events", method="POST", body=body, headers=BEARER)


@pytest.mark.parametrize(
    ("limit", "of_size"),
    [
        ("a path with its query", lambda size: call("e=start&pl=a&x=".ljust(size - len("/p"), "y"))),
        (
            "headers",
            lambda size: replace(call("e=start&pl=a"), headers=dict.fromkeys(map(str, range(size)), "y")),
        ),
        (
            "the body of a pixel, or of a form for tags",
            lambda size: call(method="POST", body=EVENT.ljust(size)),
        ),
        ("the body of an array or NDJSON", lambda size: events(EVENT.ljust(size))),
        ("events of an array or NDJSON", lambda size: events(EVENT * size)),
        (
            "parameters of a URL, a form or a JSON pixel",
            lambda size: call("e=start&pl=a" + "&x=1" * (size - 2)),
        ),
        ("an id or a label", lambda size: call({"e": "start", "pl": "a" * size})),
    ],
)
def test_a_call_beyond_a_documented_limit_has_the_documented_end(
    limit: str, of_size: Callable[[int], Call]
) -> None:
    ((most, beyond),) = [(most, beyond) for of, most, _, beyond in LIMITS if of == limit]
    _, kept = asked(of_size(most))
    assert {one.outcome for one in kept.events} == {Outcome.STORED}
    answer, kept = asked(of_size(most + 1))
    assert [one.outcome for one in kept.events] == [Outcome.REJECTED]
    assert beyond.startswith((str(answer.status), f"`{kept.events[0].reason}`"))


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/pixel", "/v1/events/", "/debug", "/.env"])
def test_an_unknown_path_is_404_without_an_event(path: str) -> None:
    answer, kept = asked(call(path=path))
    assert (answer.status, kept.events) == (404, [])


@pytest.mark.parametrize(
    ("path", "method", "events"), [("/p", "POST", 1), ("/", "POST", 0), ("/p", "PUT", 0)]
)
def test_an_unread_body_is_an_event_at_a_door(path: str, method: str, events: int) -> None:
    kept = Kept()
    doors = Doors(understanding(), cast(Store, kept))
    assert asyncio.run(doors.unread(call(path=path, method=method), 413)).status == 413
    assert len(kept.events) == events


def test_events_of_a_token_have_a_result_each() -> None:
    sent = [{"event": "start", "placement_id": "a", "event_id": "1"}, {"event": "start"}, {"event": "x"}]
    for body in (msgspec.json.encode(sent), b"\n".join(map(msgspec.json.encode, sent))):
        answer, kept = asked(call(path="/v1/events", method="POST", body=body, headers=BEARER))
        results = msgspec.json.decode(answer.body)["results"]
        assert [one["outcome"] for one in results] == ["accepted", "rejected", "rejected"]
        assert results[1] == {"outcome": "rejected", "reason": "invalid", "field": "placement_id"}
        assert len(kept.events) == 3
    answer, _ = asked(
        call(path="/v1/events", method="POST", body=msgspec.json.encode(sent), headers=BEARER), Kept(False)
    )
    assert answer.status == 503


def test_conversion_objects_and_events_do_not_mix_fields() -> None:
    conversion = {"type": "purchase", "order_id": "o", "platform": "shop", "placement_id": "a", "cm": "c"}
    event = {"event": "conversion", "event_id": "e", "value": "99", "conversion": conversion}
    for path in ("/v1/events", "/p"):
        body = msgspec.json.encode([event] if path != "/p" else event)
        _, kept = asked(call(path=path, method="POST", body=body, headers=BEARER))
        (one,) = kept.events
        assert one.event["conversion"] == {"type": "purchase", "order_id": "o"}
        assert not {"platform", "placement_id", "campaign_id"} & one.event.keys()


def test_an_invalid_line_spoils_no_other() -> None:
    body = b'{"event":"start","placement_id":"a"}\n{"event":\n[1]\n{"event":"start","placement_id":"b"}'
    answer, kept = asked(call(path="/v1/events", method="POST", body=body, headers=BEARER))
    results = msgspec.json.decode(answer.body)["results"]
    assert [one["outcome"] for one in results] == ["accepted", "rejected", "rejected", "accepted"]
    assert results[1]["reason"] == "malformed"
    assert [one.event.get("placement_id") for one in kept.events] == ["a", None, None, "b"]


def test_the_debug_door_needs_its_right_and_stores_nothing() -> None:
    answer, kept = asked(call(usual(), "/debug/p", BEARER))
    assert (answer.status, kept.events) == (401, [])


def tagged(body: Any, name: str = "desk", **headers: str) -> Answer:
    """The answer of a door that signs to a call for tags."""
    tokens = {
        "desk": {"sha256": HASH, "rights": ["tag"]},
        "spring": {"sha256": HASH, "rights": ["tag"], "campaigns": ["spring"]},
        "rest": {"sha256": HASH, "rights": ["write", "debug"]},
    }
    keys = {"a1": "a secret of 16 bytes"}
    doors = doors_of(
        load(
            collect_key="a key of the edge",
            collect_url="https://px.example",
            collect_signing_keys=keys,
            collect_tokens=tokens,
        )
    )
    shown = {"authorization": f"Bearer {name}.{SECRET}", **headers}
    sent = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return asyncio.run(doors.answer(call(path="/v1/tags", method="POST", headers=shown, body=sent)))


TAG = {"placement": "morning", "campaign": "spring", "events": "impression"}


def test_a_tagging_token_gets_tags_valid_at_the_same_door() -> None:
    answer = tagged(TAG)
    built = msgspec.json.decode(answer.body)
    assert (answer.status, built["signed"], built["dialect"]) == (200, True, "native")
    (url,) = [tag["url"] for tag in built["tags"]]
    assert url.startswith("https://px.example/p?e=impression&pl=morning&cm=spring&k=a1.")
    checked = msgspec.json.decode(tagged({"check": url}).body)
    assert (checked["outcome"], checked["good"]) == ("stored", True)
    assert msgspec.json.decode(tagged({}).body)["signs"] is True


@pytest.mark.parametrize(
    ("body", "name", "status"),
    [
        (TAG, "rest", 401),
        (TAG, "nobody", 401),
        (TAG, "spring", 200),
        (TAG | {"campaign": "autumn"}, "spring", 401),
        ({"placement": "morning"}, "spring", 401),
        # An empty field is absent: it changes neither the question nor the right that it needs.
        *(
            (TAG | {"campaign": "autumn", field: ""}, "spring", 401)
            for field in ("check", "conversion", "dialect")
        ),
        ({"conversion": "purchase", "campaign": "autumn"}, "spring", 401),
        ({"conversion": "purchase", "campaign": "autumn", "check": ""}, "spring", 401),
        ({"conversion": "purchase", "campaign": "spring"}, "spring", 200),
        ({"dialect": "triton", "campaign": "autumn"}, "spring", 401),
        ({"check": "https://px.example/p?e=start&pl=a&cm=autumn", "campaign": "autumn"}, "spring", 200),
        ({"campaign": "autumn"}, "spring", 200),  # the choices of a form, which sign nothing
        ({}, "spring", 200),
        (b"[1]", "desk", 400),
        (b"", "desk", 400),
        (b'{"placement": 1}', "desk", 400),
        (TAG | {"dialect": "nobody"}, "desk", 400),
        (b'"' + b"x" * (70 << 10) + b'"', "desk", 413),
    ],
)
def test_the_door_for_tags_needs_its_right_and_a_form(body: Any, name: str, status: int) -> None:
    assert tagged(body, name).status == status
    assert tagged(body, name, authorization="").status == 401


def test_options_are_answered_for_the_beacons_of_browsers() -> None:
    answer, kept = asked(call(method="OPTIONS"))
    assert (answer.status, kept.events) == (204, [])
    assert "POST" in headers(answer)["access-control-allow-methods"]


@pytest.mark.parametrize("origin", ["https://shop.example", "http://127.0.0.1:8080", "null"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ["/p", "/p/triton", "/b/podscribe"])
def test_a_page_of_any_origin_may_send_its_credentials_along(path: str, method: str, origin: str) -> None:
    answer, _ = asked(call(usual(), path, {"origin": origin}, method=method))
    said = headers(answer)
    assert len(said) == len(answer.headers), "a header stands there twice"
    assert said["access-control-allow-origin"] == origin
    assert said["access-control-allow-credentials"] == "true"
    assert said["vary"] == "origin"


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        *(("/v1/events", "https://shop.example"), ("/debug/p", "https://shop.example")),
        *(("/c", "https://shop.example"), ("/elsewhere", "https://shop.example")),
        *(("/p", ""), ("/p", "*"), ("/p", "\ufffd"), ("/p", "https://a.example, https://b.example")),
        *(("/p", "https://shop.example/"), ("/p", "x" * 400), ("/p", "https://" + "x" * 400)),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_other_doors_and_origins_get_no_credentials(path: str, origin: str, method: str) -> None:
    answer, _ = asked(call(usual(), path, {"origin": origin}, method=method))
    assert headers(answer)["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers(answer)


FORM_DATA = b'--x\r\nContent-Disposition: form-data; name="v"\r\n\r\n1&pl=other&p=other\r\n--x--\r\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/ping", b"PING"),
        ("multipart/form-data; boundary=x", FORM_DATA),
        (" Multipart/Form-Data; boundary=x", b"\xff\xfe"),
        ("text/plain;charset=UTF-8", b"PING"),
        ("", b"hello"),
    ],
)
def test_a_post_without_a_form_or_json_is_read_by_its_query(kind: str, body: bytes) -> None:
    headers = {"content-type": kind} if kind else {}
    _, kept = asked(call(usual(), "/p", headers, method="POST", body=body))
    _, plain = asked(call(usual()))
    (one,), (other,) = kept.events, plain.events
    assert one.outcome is Outcome.STORED
    assert one.event == other.event


@pytest.mark.parametrize(
    ("kind", "body", "query"),
    [
        ("application/json", b'{"e":"start","pl":', "e=start&pl=a"),
        ("", b"e=start&pl=\xff", "e=start&pl=a"),
        ("application/x-www-form-urlencoded", b"hello", ""),
    ],
)
def test_an_unreadable_body_is_malformed_under_any_query(kind: str, body: bytes, query: str) -> None:
    _, kept = asked(call(query, "/p", {"content-type": kind}, method="POST", body=body))
    assert [(one.outcome, one.reason) for one in kept.events] == [(Outcome.REJECTED, "malformed")]


def statuses(doors: Doors, calls: Sequence[Call]) -> list[int]:
    async def all_of_them() -> list[int]:
        return [(await doors.answer(one)).status for one in calls]

    return asyncio.run(all_of_them())


def test_calls_per_second_are_capped_by_address_behind_any_proxy() -> None:
    kept = Kept()
    doors = Doors(understanding(), cast(Store, kept), calls_per_caller=3)
    proxied = [
        call(usual(), headers={"x-forwarded-for": f"9.9.9.{n}, {HOME}"}, peer="10.0.0.1") for n in range(5)
    ]
    assert statuses(doors, proxied) == [200, 200, 200, 429, 429]
    assert kept.refused == 2
    other = call(usual(), headers={"x-forwarded-for": "81.2.69.7"}, peer="10.0.0.1")
    assert statuses(doors, [other]) == [200]
    home = [call(usual(), peer=f"2001:470:1:2::{n}") for n in range(5)]  # one household's network
    assert statuses(doors, home) == [200, 200, 200, 429, 429]


def test_a_click_beyond_the_cap_is_redirected() -> None:
    kept = Kept()
    doors = Doors(understanding(), cast(Store, kept), calls_per_caller=1)
    targets = ("https://shop.example/a", "https://shop.example/a", "https://evil.example")
    clicks = [call({"u": target, "pl": "p"}, path="/c") for target in targets]
    assert statuses(doors, clicks) == [302, 302, 429]
    assert (len(kept.events), kept.refused) == (1, 2)


def test_a_call_beyond_the_calls_in_hand_is_503_and_unstored() -> None:
    slow = Slow()
    doors = Doors(understanding(), cast(Store, slow), calls_in_hand=2)

    async def all_of_them() -> list[int]:
        waiting = [asyncio.create_task(doors.answer(call(usual()))) for _ in range(2)]
        await asyncio.sleep(0)
        path = {"c": {"u": TARGET, "pl": "p"}, "p": usual(), "debug/p": usual()}
        beyond = [(await doors.answer(call(query, f"/{door}"))).status for door, query in path.items()]
        slow.ready.set()
        later = [(await one).status for one in waiting]
        return [*beyond, *later, (await doors.answer(call(usual()))).status]

    assert asyncio.run(all_of_them()) == [302, 503, 401, 200, 200, 200]
    assert (len(slow.events), slow.refused_by) == (3, {"busy": 2})


def test_undeclared_proxies_and_token_holders_are_not_capped() -> None:
    doors = Doors(understanding(), cast(Store, Kept()), calls_per_caller=3)
    assert statuses(doors, [call(usual(), peer="127.0.0.1")] * 5) == [200] * 5
    assert statuses(doors, [call(usual(), headers=BEARER)] * 5) == [200] * 5


@pytest.mark.parametrize("name", ["x-forwarded-for", "x-device-ip"])
def test_an_unreadable_address_is_400_and_no_way_around_the_cap(name: str) -> None:
    kept = Kept()
    doors = Doors(understanding(), cast(Store, kept), calls_per_caller=3)
    for peer in (HOME, "10.0.0.1", "198.51.100.9"):
        assert statuses(doors, [call(usual(), headers={name: NOT_ASCII}, peer=peer)] * 5) == [400] * 5
    assert [(one.outcome, one.reason) for one in kept.events] == [(Outcome.REJECTED, "malformed")] * 15
    clicks = [
        call({"u": url, "pl": "p"}, "/c", {name: NOT_ASCII}) for url in (TARGET, "https://evil.example")
    ]
    assert statuses(doors, clicks) == [302, 400], "the listener goes first"
    assert kept.events[-2:] == [UNREAD] * 2


@pytest.mark.parametrize("many", ['"', "\U0001f3a7"])
def test_the_flow_accepts_stored_events_with_texts_of_any_length(many: str) -> None:
    ids = (
        "placement_id",
        "campaign_id",
        "creative_id",
        "play_id",
        "platform",
        "station",
        "podcast",
        "program",
    )
    long = dict.fromkeys((*ids, "episode", "event_id", "order_id", "listener_id"), many * 128)
    long |= {"ga_client_id": many * 64, "type": "purchase", "value": many * 64, "consent": True}
    long["content_category"] = [many * 128] * 40
    for event, url in product(
        ("click", "conversion"), (f"https://x/{many * 5_000}", f"/?utm_x={many * 5_000}")
    ):
        body = msgspec.json.encode([long | {"event": event, "landing_url": url}])
        answer, kept = asked(Call("POST", "/v1/events", "", BEARER, body, HOME, NOW_MS))
        assert msgspec.json.decode(answer.body)["results"] == [{"outcome": "accepted"}]
        (one,) = kept.events
        line = line_of(one.event, one.key).body
        assert len(line) < MAX_MESSAGE_BYTES - 1_000, "beside what its lane adds"
        assert not Decoder(b"0123456789abcdef").decode(Messages([line], [1], 2)).rejected
