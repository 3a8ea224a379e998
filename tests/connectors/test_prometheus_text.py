"""The text exposition, as Prometheus's own client library reads it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from connectors.prometheus import Exposition, Family, label_string, metrics_route

PLAYS = Family("plays_total", "counter", "Plays, with a \\ and\na second line.")
SPEED = Family("speed_ratio", "gauge", "Speed.")


def family_text(family: Family, labels: Iterable[str], values: Iterable[str | int | float | None]) -> str:
    exposition = Exposition()
    exposition.add(family, labels, values)
    return exposition.text()


def samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    return [
        (s.name, s.labels, s.value) for family in text_string_to_metric_families(text) for s in family.samples
    ]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(0, 2**53))
def test_any_label_survives_quotes_newlines_and_backslashes_included(value: str, number: int) -> None:
    text = family_text(PLAYS, [label_string({"placement": value, "station": '"\n\\'})], [number])
    assert text.count("\n") == 3
    assert samples(text) == [("plays_total", {"placement": value, "station": '"\n\\'}, number)]


def test_a_null_omits_its_sample_alone() -> None:
    labels = [label_string({"placement": name}) for name in "abc"]
    assert samples(family_text(SPEED, labels, ["0.25", None, 0])) == [
        ("speed_ratio", {"placement": "a"}, 0.25),
        ("speed_ratio", {"placement": "c"}, 0.0),
    ]


def test_empty_labels_and_empty_braces_are_omitted() -> None:
    assert label_string({"placement": "a", "station": ""}) == '{placement="a"}'
    assert family_text(SPEED, [label_string({})], [1]).splitlines()[-1] == "speed_ratio 1"


def test_a_column_of_another_length_than_its_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        family_text(SPEED, ["", ""], [1])


def test_kind_and_help_are_read_back() -> None:
    (family,) = text_string_to_metric_families(family_text(PLAYS, [""], [1]))
    assert (family.type, family.documentation) == ("counter", PLAYS.help)


def test_parts_of_a_family_are_joined_under_one_head() -> None:
    exposition = Exposition()
    for place in ("a", "b"):
        exposition.add(PLAYS, [label_string({"placement": place})], [1])
        exposition.add(SPEED, [], [])
    exposition.add(PLAYS, [""], [2])
    assert [line.split()[0] for line in exposition.text().splitlines() if line[0] != "#"] == [
        'plays_total{placement="a"}',
        'plays_total{placement="b"}',
        "plays_total",
    ]
    assert exposition.text().count("# TYPE") == 2


def served(accept: str) -> tuple[httpx.Headers, bytes]:
    """The response, still compressed."""
    body = family_text(
        PLAYS, [label_string({"placement": f"pl-{n}"}) for n in range(100)], range(100)
    ).encode()
    app = Starlette(routes=[metrics_route("/metrics", lambda: body)])

    async def get() -> tuple[httpx.Headers, bytes]:
        async with (
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://exporter") as client,
            client.stream("GET", "/metrics", headers={"accept-encoding": accept}) as response,
        ):
            return response.headers, b"".join([chunk async for chunk in response.aiter_raw()])

    return asyncio.run(get())


def test_a_client_without_gzip_gets_plain_text() -> None:
    headers, body = served("identity")
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "content-encoding" not in headers
    assert len(samples(body.decode())) == 100


def test_a_client_with_gzip_gets_its_fastest_level() -> None:
    headers, body = served("gzip")
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["content-encoding"] == "gzip"
    assert body[8] == 4, "RFC 1952: XFL 4 is the fastest algorithm"
    assert len(samples(zlib.decompress(body, wbits=31).decode())) == 100
