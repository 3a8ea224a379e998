"""The cost of one call that anybody may send, in letters decoded: never much more than it is long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast
from urllib.parse import quote, urlencode

import pytest
from collector_support import call, understanding
from test_doors import Kept

from flows.collector import query
from flows.collector.call import Call, Outcome
from flows.collector.dialects import NATIVE
from flows.collector.doors import Doors
from flows.collector.query import LONGEST_NAME, MAX_DECODINGS
from flows.collector.store import Store
from flows.model.catalogue.limits import LONGEST_VALUE, MAX_LINE_BYTES, MAX_PARAMETERS, MAX_PIXEL_BYTES

KNOWN = list(NATIVE)


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all that is decoded."""
    found: list[int] = []

    def counted(decode: Callable[[str], str]) -> Callable[[str], str]:
        def counting(text: str) -> str:
            found.append(len(text))
            return decode(text)

        return counting

    for name in ("unquote", "unquote_plus"):
        monkeypatch.setattr(query, name, counted(getattr(query, name)))
    return found


def posted(body: str | bytes, path: str = "/p") -> tuple[int, list[Outcome]]:
    made = call(path=path, method="POST", body=body.encode() if isinstance(body, str) else body)
    kept = Kept()
    answer = asyncio.run(Doors(understanding(), cast(Store, kept)).answer(made))
    return answer.status, [one.outcome for one in kept.events]


def percent_text(name: str, length: int, kind: str = "%25") -> str:
    return f"{name}={kind * (length // len(kind))}"


@pytest.mark.parametrize("body", ["e=start&pl=" + "%25" * 349_000, '{"e":"start","pl":"' + "x" * 70_000])
def test_a_body_without_a_beacon_is_not_decoded(body: str, letters: list[int]) -> None:
    assert posted(body) == (413, [Outcome.REJECTED])
    assert letters == []


def test_unused_parameters_are_not_decoded(letters: list[int]) -> None:
    many = "&".join(percent_text(f"unknown{n}", 450) for n in range(MAX_PARAMETERS - 2))
    assert posted(f"e=start&pl=a&{many}") == (200, [Outcome.STORED])
    assert sum(letters) < 100


@pytest.mark.parametrize("kind", ["%25", "%2525", "%252525", "%41"])
@pytest.mark.parametrize("path", ["/p", "/p/cm360", "/b/appsflyer", "/b/prebid"])
@pytest.mark.parametrize("names", [["pl"], KNOWN, ["event_name", "e"], ["t", "vtype"], ["u"], ["lmt"]])
def test_a_body_is_decoded_no_oftener_than_a_url_is(
    kind: str, path: str, names: list[str], letters: list[int]
) -> None:
    each = (MAX_PIXEL_BYTES - 2_000) // len(names)
    body = "&".join(percent_text(name, each, kind) for name in names)
    posted(body, path)
    most = min(len(body), (LONGEST_VALUE + 8 * 3**MAX_DECODINGS) * len(names))
    assert sum(letters) <= 2 * MAX_DECODINGS * most  # a parameter that a case goes by is a word, too


def test_a_name_as_long_as_a_body_is_not_decoded(letters: list[int]) -> None:
    posted("e=start&pl=a&" + "%25" * 20_000 + "=x")
    assert sum(letters) < LONGEST_NAME


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("target", ["https://shop.example/?next=a%26b%3Dc d&x=%2525", "HTTP://x.example/a+b"])
def test_a_url_in_a_form_keeps_its_own_encoded_query(target: str, times: int) -> None:
    encoded = target
    for _ in range(times):
        encoded = "".join(f"%{ord(letter):02X}" for letter in encoded)
    assert query.form_value(encoded) == target


def test_every_form_field_is_read() -> None:
    words = {"e": "conversion", "ct": "purchase", "o": "a b+c%", "cat": "1,2", "pc": "50%25 off", "id": "i"}
    long = "L" * 9_000
    made = Call("POST", "/p", "", {}, (urlencode(words) + f"&u={quote(long)}").encode(), "8.8.8.8", 1)
    event = understanding().pixel(made).event
    assert event["conversion"]["order_id"] == "a b+c%"
    assert (event["content_category"], event["podcast"], event["event_id"]) == (["1", "2"], "50% off", "i")
    assert len(made.body) < MAX_LINE_BYTES
