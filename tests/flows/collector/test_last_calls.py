"""The last calls of a collector: the outcome of each, without personal ids, in bounded memory."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, cast

import msgspec
import pytest
from collector_support import NOW_MS, SECRET, call, understanding, usual
from test_doors import Kept, headers

from flows.collector.call import Call
from flows.collector.doors import Doors
from flows.collector.last_calls import A_SECOND, LastCalls
from flows.collector.signatures import Signatures
from flows.collector.store import Store
from flows.model.last_call import MAX_CALLS, MAX_LETTERS, LastCall, decoded, encoded

SIGNATURES = Signatures({"a1": b"a signing key"})
OTHERS = Signatures({"a1": b"another key"})
DEBUG = SIGNATURES.of_debug(NOW_MS // 1000 + 60)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def doors(takes: bool = True, last: LastCalls | None = None, **values: Any) -> Doors:
    kept = Kept(takes=takes)
    return Doors(understanding(**values), cast(Store, kept), last=last or LastCalls())


def verdict(one: Call, of: Doors | None = None) -> str | None:
    answer = asyncio.run((of or doors()).answer(one))
    return headers(answer).get("x-audiopixel")


def local(**values: Any) -> Call:
    made = call(usual(**values))
    return Call(made.method, made.path, made.query, made.headers, b"", "127.0.0.1", NOW_MS)


def test_five_first_mistakes_and_a_stored_pixel_have_distinct_verdicts() -> None:
    signed = doors(placements="signed")
    assert verdict(local(e="impresion")) == ("rejected; unknown_event; event=impresion; meant=impression")
    assert verdict(local(), signed) == "rejected; unsigned; placement_id"
    assert verdict(local(k="a1.forged"), signed) == "rejected; unsigned; placement_id"
    assert verdict(Call("GET", "/p", "event_type=start&placement=a", {}, b"", "::1", NOW_MS)) == (
        "rejected; invalid; event"
    )
    assert verdict(Call("POST", "/p", "", {}, b'{"placement_id":"a"}', "::1", NOW_MS)) == (
        "rejected; invalid; event"
    )
    assert str(verdict(local())).startswith("stored; ")
    curl = Call("GET", "/p", local().query, {"user-agent": "curl/8.5"}, b"", "127.0.0.1", NOW_MS)
    assert "invalid_traffic=" in str(verdict(curl))


def test_verdicts_are_for_localhost_tokens_and_signed_debug_values() -> None:
    assert verdict(call(usual())) is None
    for name in ("x-forwarded-for", "via", "forwarded", "x-real-ip"):
        proxied = Call("GET", "/p", local().query, {name: "198.51.100.7"}, b"", "127.0.0.1", NOW_MS)
        assert verdict(proxied) is None
    assert verdict(call(usual(), headers={"authorization": f"Bearer host.{SECRET}"})) is not None
    assert verdict(call(usual(dbg=DEBUG))) is not None
    late = NOW_MS // 1000 - 1
    for wrong in (
        OTHERS.of_debug(NOW_MS // 1000 + 60),
        SIGNATURES.of_debug(late),
        SIGNATURES.of_debug(NOW_MS // 1000 + 10**8),
        DEBUG.replace("a1", "b1"),
        f"9{DEBUG}",
        "",
        "x",
        "1.2.3",
        DEBUG + "x" * 200,
        "٣" + DEBUG[1:],
    ):
        assert verdict(call(usual(dbg=wrong))) is None, wrong


def test_a_verdict_contains_no_value_outside_names() -> None:
    for event in ("jane@example.com", "1.2.3.4", "x\r\nset-cookie: a=b", "é", "x" * 33):
        told = verdict(local(e=event))
        assert told in ("rejected; unknown_event; event", "rejected; invalid; event"), event


def test_an_unstored_call_has_the_verdict_refused() -> None:
    of = doors(takes=False)
    assert verdict(local(), of) == "refused"
    assert [one.outcome for one in of.last.shown()] == ["refused"]


def test_a_call_is_shown_without_anybodys_identity() -> None:
    of = doors()
    secrets = {
        "p": "play-of-jane",
        "l": "listener-jane",
        "gdpr_consent": "CQconsentstring",
        "ip": "198.51.100.9",
    }
    asyncio.run(of.answer(call(usual(**secrets, placement="x", email="jane@example.com"))))
    (one,) = of.last.shown()
    text = encoded([one])
    for secret in (*secrets.values(), "jane@example.com", "Mozilla", "8.8.8.8", "198.51"):
        assert secret not in text
    assert (one.outcome, one.placement, set(one.unread)) == ("stored", usual()["pl"], {"placement", "email"})
    assert decoded(text) == [one]


def test_each_text_of_a_call_is_short_and_on_one_line() -> None:
    of = doors()
    names = "&".join(f"n{number}{'x' * 25}=1" for number in range(500))
    made = call(usual(pl="p" * 100 + "\n", cn="\u202ec" * 50))
    asyncio.run(of.answer(Call("GET", "/p", f"{made.query}&{names}", made.headers, b"", "8.8.8.8", NOW_MS)))
    (one,) = of.last.shown()
    assert max(len(one.placement), len(one.campaign)) <= MAX_LETTERS
    assert "\n" not in one.placement
    assert "\u202e" not in one.campaign
    assert len(encoded([one])) < 1_000


def test_a_flood_of_one_verdict_hides_no_other_and_is_counted() -> None:
    clock, of = Clock(), doors()
    of.last = LastCalls(clock)

    async def flood() -> None:
        await of.answer(call(usual(pl="mine")))
        for _second in range(20):
            clock.now_s += 1
            for event in ("no-such", "", "x" * 50):
                for _ in range(100):
                    await of.answer(call(usual(e=event)))
        await of.answer(call(usual(pl="asked", dbg=DEBUG)))

    asyncio.run(flood())
    shown = of.last.shown()
    assert len(shown) <= MAX_CALLS
    assert {"mine", "asked"} <= {one.placement for one in shown}
    assert max(one.alike for one in shown) >= 100 - A_SECOND
    assert of.last.events == 6_002
    assert len(encoded(shown)) < 40_000


def test_a_flood_of_stored_calls_spares_the_places_of_debug_calls() -> None:
    clock = Clock()
    of = doors(last=LastCalls(clock))

    async def flood() -> None:
        await of.answer(call(usual(pl="asked", dbg=DEBUG)))
        for _ in range(60):
            clock.now_s += 1
            for number in range(20):
                await of.answer(call(usual(pl=f"p{number}")))

    asyncio.run(flood())
    shown = of.last.shown()
    assert len([one for one in shown if one.outcome == "stored"]) <= MAX_CALLS
    assert "asked" in {one.placement for one in shown}


def test_an_unrecorded_call_costs_next_to_nothing() -> None:
    clock, of = Clock(), doors()
    last = LastCalls(clock)
    made = call(usual())
    (event,) = [of.understanding.pixel(made)]

    def seconds(act: Any, times: int = 5_000) -> float:
        began_s = time.process_time()
        for _ in range(times):
            act()
        return (time.process_time() - began_s) / times

    take = min(
        seconds(lambda: last.take(made, [event], True, False, of.understanding.dialect_of)) for _ in range(5)
    )
    understand = min(seconds(lambda: of.understanding.pixel(made), 500) for _ in range(5))
    assert take < 0.05 * understand


@pytest.mark.parametrize("text", ["{}", "[1]", "", '[{"at_ms":"x","outcome":"stored"}]'])
def test_a_text_without_calls_is_refused(text: str) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decoded(text)


def test_more_calls_than_are_shown_are_cut() -> None:
    assert len(decoded(json.dumps([{"at_ms": 1, "outcome": "stored"}] * 150))) == MAX_CALLS
    assert LastCall(1, "stored") in decoded(encoded([LastCall(1, "stored")]))
