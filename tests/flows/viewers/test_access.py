"""Read access: a reader finds the own rows, and nothing of another by any path, header, id or export."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from access_support import (
    DISPUTED,
    PLANS,
    SECRET,
    access,
    app_of,
    asked,
    bearer,
    put_two_advertisers,
    token,
)
from pydantic import SecretStr
from reader_support import tag_door
from starlette.applications import Starlette

from connectors.stream import ConnectError
from flows.errors import PlanError, SettingsError
from flows.settings import Settings, load
from flows.settings.show import written
from flows.viewers.access import MAX_CREDENTIAL_LENGTH, Access, Owner, Owners, Sight
from flows.viewers.exporter import serve
from flows.viewers.reader import RowsReader

HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def settings(valkey: Any) -> Settings:
    put_two_advertisers(valkey.url, "access")
    return load(redis_url=valkey.url, namespace="access")


@pytest.fixture(scope="module")
def app(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Starlette:
    theirs = tmp_path_factory.mktemp("theirs") / "theirs.csv"
    theirs.write_text(f"placement_id,day,deliveries\nzebra-planned,{DISPUTED},471147114\n")
    return app_of(settings, access(), theirs=theirs)


def get(app: Starlette, path: str, name: str = "mine", **headers: str) -> httpx.Response:
    (answer,) = asked(app, ("GET", path, {**bearer(name), **headers}))
    return answer


def sent(answer: httpx.Response) -> list[str]:
    """The placements in a page without a script."""
    return re.findall(r'<th scope="row" class="left">([^<]+)', answer.text)


# Who sees what


@pytest.mark.parametrize(
    ("name", "placements"),
    [
        ("mine", {"mine-planned", "mine-unplanned"}),
        ("acme", {"mine-planned", "mine-unplanned", "acme-alone"}),
        ("zebra", {"zebra-planned", "zebra-forged", "zebra/../mine-planned", "{zebra}", ".."}),
    ],
)
def test_a_token_sees_placements_planned_for_its_campaigns_and_advertisers(
    app: Starlette, name: str, placements: set[str]
) -> None:
    assert set(sent(get(app, "/table", name))) == placements


def test_a_report_is_of_campaigns_in_sight_alone(app: Starlette) -> None:
    whole = {name: get(app, "/report?id=c-mine", name).status_code for name in ("mine", "all", "zebra")}
    assert whole == {"mine": 200, "all": 200, "zebra": 404}
    assert set(sent(get(app, "/report?id=c-mine", "mine"))) <= {"mine-planned", "mine-unplanned"}


def test_a_read_all_token_sees_every_placement_and_the_metrics(app: Starlette) -> None:
    assert len(sent(get(app, "/table", "all"))) == 8
    # A forged pixel gives an alert of a planned placement no other campaign's label.
    told = 'audiopixel_placement_info{placement="zebra-forged",campaign="zebra-c",'
    assert told in get(app, "/metrics/placements", "all").text
    assert get(app, "/api/collectors", "all").status_code == 200


def test_a_campaign_is_an_advertisers_only_by_all_its_plans() -> None:
    plans = [Owner("a", "c-1", "acme"), Owner("b", "c-1", None), Owner("c", "c-2", "acme")]
    owners = Owners(lambda: plans)
    owners.refresh()
    acme = Sight("acme", False, frozenset(), frozenset({"acme"}), owners)
    assert (acme.campaign("c-1"), acme.campaign("c-2"), acme.campaign(None)) == (False, True, False)
    assert acme.placement("a", {"campaign_id": "c-1"})
    assert not acme.placement("b", {"campaign_id": "c-2"})


def test_pixels_cannot_move_an_advertisers_placement_to_a_campaign() -> None:
    owners = Owners(lambda: [Owner("a", None, "acme"), Owner("b", None, None)])
    owners.refresh()
    of = [owners.campaign_of(name, {"campaign_id": "of-a-pixel"}) for name in ("a", "b", "c")]
    assert of == [None, "of-a-pixel", "of-a-pixel"]


def test_changed_plans_hide_a_placement_from_its_former_reader() -> None:
    books = [[Owner("a", "theirs", None)], [Owner("a", "c-mine", None)]]
    readers = access(owners=())
    readers.owners.read = books.pop
    sight = readers.of_token(f"mine.{SECRET}")
    assert sight is not None
    seen = []
    for _ in range(2):
        readers.owners.refresh()
        seen.append(sight.placement("a", {"campaign_id": "c-mine"}))
    assert seen == [True, False]


def test_an_alert_belongs_to_the_owner_of_its_time() -> None:
    sight = access().of_token(f"mine.{SECRET}")
    assert sight is not None
    told = {"placement": "mine-planned", "campaign": "c-mine"}
    assert sight.alert(told)
    assert not sight.alert(told | {"campaign": "zebra-c"})
    assert not sight.alert({"placement": "zebra-forged", "campaign": "c-mine"})
    acme = access().of_token(f"acme.{SECRET}")
    assert acme is not None
    alone = {"placement": "acme-alone", "campaign": "of-its-pixels"}
    assert acme.alert(alone | {"advertiser": "acme"})
    assert not acme.alert(alone | {"advertiser": "zebra"}), "it has changed hands"
    assert not acme.alert(alone), "of a time in which nobody was named"


def test_a_restricted_reader_does_not_see_rediss_address(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ConnectError("cannot reach Redis at 10.1.2.3:6379")

    monkeypatch.setattr(RowsReader, "row", away)
    whole, part = (get(app, "/row?id=mine-planned", name) for name in ("all", "mine"))
    assert (whole.status_code, part.status_code) == (503, 503)
    assert ("10.1.2.3" in whole.text, "10.1.2.3" in part.text) == (True, False)


# Hostile requests

PATHS = (
    *("/metrics", "/metrics/", "/metrics/placements", "/metrics%2fplacements", "//metrics/placements"),
    *(
        "/page/../metrics/placements",
        "/page/..%2f..%2fmetrics",
        "/page/%2e%2e/metrics",
        "/metrics/./placements",
    ),
    *(
        "/METRICS",
        "/metrics;x",
        "/metrics?",
        "/metrics%00",
        "/metrics%0a",
        "/api/collectors",
        "/api/collectors/",
    ),
    *(
        "/api//collectors",
        "/v1/../api/collectors",
        "/page//api/collectors",
        "/api/tag",
        "/api/tag?dialect=vast",
    ),
    *("/api/platforms", "/api/platforms/", "/api//platforms", "/API/platforms", "/v1/../api/platforms"),
    *(
        "/row?scope=creative&id=zebra-creative",
        "/v1/creatives/zebra-creative",
        "/v1/creatives",
        "/v1/creatives?format=csv",
    ),
    *(
        "/v1/methodology/zebra",
        "/v1/methodology/zebra-planned",
        "/v1/days/zebra-planned",
        "/row?scope=days&id=zebra-planned",
    ),
    *("/row?scope=days&id=zebra-planned:2026-11-24", "/row?scope=placement&id=zebra-planned&range=flight"),
    *("/row?id=zebra-planned", "/row?scope=campaign&id=zebra-c", "/row?scope=station&id=zebra-fm"),
    *("/row?id=zebra-forged", "/row?id=mine-planned&id=zebra-planned", "/row?id=zebra%2dplanned"),
    *("/row?id=mine-planned%00zebra-planned", "/row?scope=placement&scope=campaign&id=zebra-c"),
    *("/row?scope=other&id=placement", "/row?scope=../placement&id=zebra-planned", "/row?id=%7Bzebra%7D"),
    *(
        "/row?id={zebra}",
        "/row?id=..",
        "/row?id=%2e%2e",
        "/row?id=zebra/../mine-planned",
        "/row/?id=zebra-planned",
    ),
    *("//row?id=zebra-planned", "/row?scope=sketch&id=zebra-planned", "/row?scope=meta&id=", "/row?id=*"),
    *("/row?scope=placement:%7Bzebra-planned%7D&id=", "/row?scope=campaign:%7Bc-mine%7D&id=zebra-c"),
    *(
        "/table",
        "/table?token=all." + SECRET,
        "/",
        "/?id=zebra-planned",
        "/login",
        "/healthz",
        "/events/../row",
    ),
    *("/v1/placements/zebra-planned", "/v1/placements/zebra%2dplanned", "/v1/placements/%7Bzebra%7D"),
    *("/v1/placements/zebra-forged", "/v1/placements/zebra-forged/minutes", "/v1/placements/{zebra}"),
    *("/v1/placements/mine-planned/../zebra-planned", "/v1/placements/mine-planned%2f..%2fzebra-planned"),
    *(
        "/v1/placements/zebra%2f..%2fmine-planned",
        "/v1//placements/zebra-planned",
        "/v1/placements//zebra-planned",
    ),
    *(
        "/v1/placements/%2e%2e",
        "/v1/placements/..",
        "/v1/placements?id=..",
        "/v1/placements?id=zebra-planned",
    ),
    *(
        "/v1/placements?campaign=zebra-c",
        "/v1/placements?format=csv",
        "/v1/campaigns?format=csv",
        "/v1/campaigns",
    ),
    *("/v1/campaigns/zebra-c", "/v1/campaigns/zebra-c?format=csv", "/v1/placements/zebra-planned?format=csv"),
    *(
        "/v1/placements/zebra-planned/minutes?format=csv",
        "/v1/stations/zebra-fm",
        "/v1/platforms/zebra-platform",
    ),
    *("/v1/stations", "/v1/other/placement", "/v1/others/placement", "/v1/sketchs/zebra-planned", "/v1/meta"),
    *("/v1/conversions/zebra-order", "/v1/conversions/zebra%2dorder", "/v1/conversions/%7Bzebra-order%7D"),
    *("/v1/placements/zebra-planned%00", "/v1/placements/zebra-planned%ff", "/V1/placements/zebra-planned"),
    *("/v1/placements/mine-planned?id=zebra-planned", "/v1/placements/zebra-planned/", "/v1"),
    *(
        "/v1/placement/zebra-planned",
        "/v1/placements/placement:%7Bzebra-planned%7D",
        "/docs",
        "/docs/runbook.md",
        "/docs/../row?id=zebra-planned",
        "/docs/%2e%2e/row?id=zebra-planned",
        "/docs/..%2f..%2frow?id=zebra-planned",
        "/openapi.json",
        "/adcp/get_media_buy_delivery",
        "/adcp/../metrics",
        "/adcp/%2e%2e/metrics",
        "/adcp/",
        "/mcp/../metrics",
    ),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY")
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1"},
    {"host": "127.0.0.1", "origin": "http://127.0.0.1"},
    {"x-original-url": "/metrics/placements", "x-rewrite-url": "/row?id=zebra-planned"},
    {"x-http-method-override": "GET", "accept": "text/csv", "content-type": "application/json"},
    {"cookie": f"audiopixel_session=zebra.9999999999.{'0' * 64}", "if-none-match": "*", "range": "bytes=0-9"},
)


def test_a_reader_finds_nothing_of_another_reader(app: Starlette) -> None:
    every = [(method, path, {}) for method, path in product(METHODS, PATHS)]
    every += [("GET", path, more) for path, more in product(PATHS, HEADERS)]
    answers = asked(app, *((method, path, {**more, **bearer("mine")}) for method, path, more in every))
    assert len(answers) > 1_000
    for (method, path, more), answer in zip(every, answers, strict=True):
        told = answer.text + repr(answer.headers.raw)
        assert not re.search("zebra|424242424|471147114", told), (method, path, more)
        assert answer.status_code < 500, (method, path, more)


def test_a_reader_finds_its_own_secret_values(app: Starlette) -> None:
    """The previous test would otherwise find nothing for any content of the exporter."""
    row = get(app, "/row?id=zebra-planned", "zebra").json()
    assert [(one["ours"], one["theirs"], one["counted"]) for one in row["theirs"]["rows"]] == [
        (424242424, 471147114, "deliveries")
    ]
    for path in ("/api/platforms", "/v1/creatives/zebra-creative"):
        assert "zebra" in get(app, path, "all").text


def test_cells_of_a_broken_file_are_shown_only_to_full_readers(settings: Settings, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.csv"
    theirs.write_text(f"placement_id,day,deliveries\nmine-planned,{DISPUTED},5\n")
    exporter = app_of(settings, access(), theirs=theirs)
    get(exporter, "/row?id=mine-planned")
    broken = "placement_id,day,impressions,basis\nzebra-planned,flight,5,zebra Q4: 910000 at 31 EUR\n"
    theirs.write_text(broken)
    told, whole = (get(exporter, "/row?id=mine-planned", name).json()["theirs"] for name in ("mine", "all"))
    assert told["error"] == "their file cannot be read now"
    assert "zebra Q4" in whole["error"]


def test_a_hidden_row_is_answered_like_a_missing_one(app: Starlette) -> None:
    pairs = (
        ("/metrics", "/nothing"),
        ("/api/collectors", "/api/nothing"),
        ("/metrics/placements", "/api/nothing"),
        ("/row?id=zebra-planned", "/row?id=nobody"),
        ("/row?scope=campaign&id=zebra-c", "/row?scope=campaign&id=nobody"),
    )
    for hidden, absent in pairs:
        one, other = get(app, hidden), get(app, absent)
        assert (one.status_code, one.content, one.headers) == (404, other.content, other.headers), hidden


STRANGERS: tuple[dict[str, str], ...] = (
    {},
    bearer("mine", "wrong"),
    bearer("nobody"),
    bearer("mine", SECRET[:-1]),
    bearer("mine", f"{SECRET}x"),
    bearer("mine", SECRET + "\u00e9"),
    {"authorization": f"Bearer mine.{'x' * MAX_CREDENTIAL_LENGTH}"},
    {"authorization": f"Basic mine.{SECRET}"},
    {"authorization": f"Bearer {SECRET}"},
    {"authorization": "Bearer"},
    {"authorization": f"Bearer .{SECRET}"},
    {"cookie": f"audiopixel_session=mine.{SECRET}"},
    {"cookie": f"audiopixel_session=all.9999999999.{'0' * 64}"},
    {"cookie": "audiopixel_session=all.9999999999."},
    {"cookie": "audiopixel_session=all.x.y"},
    {"cookie": "audiopixel_session=..."},
)


@pytest.mark.parametrize("shown", STRANGERS)
def test_a_stranger_is_shown_nothing(app: Starlette, shown: dict[str, str]) -> None:
    paths = (
        "/",
        "/events",
        "/row?id=mine-planned",
        "/table",
        "/metrics",
        "/v1/placements",
        f"/table?token=mine.{SECRET}",
    )
    encoded = {name: value.encode("latin-1") for name, value in shown.items()}
    for answer in asked(app, *(("GET", path, encoded) for path in paths)):  # type: ignore[arg-type]  # httpx takes bytes
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="audiopixel"'
        assert "mine-planned" not in answer.text


def test_the_documents_are_everybodys_and_no_way_to_anything_else(app: Starlette) -> None:
    paths = (
        "/docs/",
        "/docs/runbook.md",
        "/docs/search.json",
        "/page/document.css",
        "/page/search.js",
        "/docs/../row?id=mine-planned",
        "/docs/x/../../table",
    )
    found = asked(app, *(("GET", path, {}) for path in paths))
    assert [answer.status_code for answer in found] == [200, 200, 200, 200, 200, 401, 401]


def test_two_tokens_or_two_sessions_in_one_request_are_none(app: Starlette) -> None:
    twice = httpx.Headers([*bearer("mine").items(), *bearer("all").items()])
    (answer,) = asked(app, ("GET", "/table", twice))
    # httpx joins what is repeated; an ASGI server does not.
    assert answer.status_code == 401
    scope = {
        "type": "http",
        "path": "/table",
        "method": "GET",
        "query_string": b"",
        "client": ("203.0.113.9", 1),
    }
    raw = [(name.encode(), value.encode()) for who in ("all", "mine") for name, value in bearer(who).items()]
    assert asyncio.run(status(app, {**scope, "headers": raw})) == 401


async def status(app: Starlette, scope: dict[str, Any]) -> int:
    found: list[Any] = []

    async def send(message: Any) -> None:
        found.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    await app(scope, receive, send)
    return int(found[0]["status"])


# Sessions


def sign_in(app: Starlette, name: str = "mine", secret: str = SECRET, **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=("203.0.113.9", 1))
        async with httpx.AsyncClient(
            transport=transport, base_url=headers.pop("base", "https://desk.example")
        ) as client:
            return await client.post("/login", data={"token": f"{name}.{secret}"}, headers=headers)

    return asyncio.run(send())


def test_the_form_sets_a_session_unusable_by_scripts_and_other_sites(app: Starlette) -> None:
    answer = sign_in(app)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert SECRET not in cookie
    session = {"cookie": cookie.split(";")[0]}
    page, table = asked(app, ("GET", "/", session), ("GET", "/table", session))
    assert page.status_code == 200
    assert set(sent(table)) == {"mine-planned", "mine-unplanned"}


def test_over_plain_http_the_session_is_not_marked_secure(app: Starlette) -> None:
    assert "Secure" not in sign_in(app, base="http://desk.example").headers["set-cookie"]


def test_wrong_tokens_foreign_forms_and_long_bodies_do_not_sign_in(app: Starlette) -> None:
    for answer in (
        sign_in(app, secret="wrong"),
        sign_in(app, origin="https://evil.example"),
        sign_in(app, secret="x" * 5_000),
        sign_in(app, secret="\u00e9"),
    ):
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


def test_a_session_is_bound_to_its_name_and_end() -> None:
    now_s = [1_000.0]
    readers = access(clock_s=lambda: now_s[0])
    session = readers.session(f"mine.{SECRET}")
    assert readers.of_session(session) == readers.of_token(f"mine.{SECRET}")
    name, end, mac = session.split(".")
    assert readers.of_session(f"all.{end}.{mac}") is None
    assert readers.of_session(f"{name}.{int(end) + 1}.{mac}") is None
    now_s[0] += readers.session_s
    assert readers.of_session(session) is None


def test_a_session_outlives_a_restart_until_a_token_changes(settings: Settings) -> None:
    def status(readers: Access, cookie: str) -> int:
        (answer,) = asked(app_of(settings, readers), ("GET", "/v1/meta", {"cookie": cookie}))
        return answer.status_code

    key = SecretStr("k" * 32)
    desk = token(read_all=True)
    other = desk.model_copy(update={"sha256": SecretStr("a" * 64)})
    cookie = f"audiopixel_session={Access({'desk': desk}, key=key).session(f'desk.{SECRET}')}"
    assert status(Access({"desk": desk}, key=key), cookie) == 200
    fewer = token(read_all=True, rights=("read",))
    for tokens in ({"desk": other}, {"desk": fewer}, {"desk": desk, "more": other}, {"more": desk}):
        assert status(Access(tokens, key=key), cookie) == 401
    for another in (None, SecretStr("l" * 32)):
        assert status(Access({"desk": desk}, key=another), cookie) == 401
    assert SECRET not in cookie
    assert desk.sha256.get_secret_value() not in cookie


def test_a_session_of_a_made_token_ends_with_its_process() -> None:
    readers = Access()
    session = readers.session(readers.created_token or "")
    assert readers.of_session(session) is not None
    assert Access().of_session(session) is None


def test_a_browser_without_a_session_is_led_to_the_form(app: Starlette) -> None:
    page, form = asked(app, ("GET", "/", HTML), ("GET", "/login", HTML))
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert 'type="password"' in form.text
    assert "form-action 'self'" in form.headers["content-security-policy"]


def test_signing_out_deletes_the_session(app: Starlette) -> None:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="https://desk.example"
        ) as client:
            return await client.post("/login", content=urlencode({"leave": "1", "token": ""}))

    assert 'audiopixel_session=""; ' in asyncio.run(send()).headers["set-cookie"]


# Rights


@pytest.mark.parametrize(
    ("rights", "allowed"),
    [
        (("metrics",), {"/metrics", "/metrics/placements"}),
        (("read",), {"/", "/table", "/v1/placements", "/v1/meta", "/api/collectors", "/page/main.js"}),
        (("tag",), {"/api/tag"}),
        (("act",), set()),
    ],
)
def test_a_token_reaches_only_paths_of_its_rights(
    settings: Settings, rights: tuple[str, ...], allowed: set[str]
) -> None:
    app = app_of(settings, Access({"t": token(read_all=True, rights=rights)}))
    paths = ["/metrics", "/metrics/placements", "/", "/table", "/v1/placements", "/v1/meta"]
    paths += ["/api/collectors", "/page/main.js", "/api/tag"]
    answers = dict(zip(paths, asked(app, *(("GET", path, bearer("t")) for path in paths)), strict=True))
    assert {path for path, answer in answers.items() if answer.status_code != 403} == allowed
    for path, answer in answers.items():
        assert path in allowed or "This token lacks the right" in answer.text
        assert path in allowed or "zebra" not in answer.text
    session = {"cookie": f"audiopixel_session={Access({'t': token(read_all=True)}).session('t.x')}"}
    assert {answer.status_code for answer in asked(app, *(("GET", path, session) for path in paths))} == {401}


def test_a_session_has_its_tokens_rights(settings: Settings) -> None:
    readers = Access({"t": token(read_all=True, rights=("metrics",))})
    session = {"cookie": f"audiopixel_session={readers.session(f't.{SECRET}')}"}
    scraped, read = asked(
        app_of(settings, readers), ("GET", "/metrics", session), ("GET", "/v1/meta", session)
    )
    assert (scraped.status_code, read.status_code) == (200, 403)


def test_a_reading_token_mints_no_tag(settings: Settings) -> None:
    asks = "/api/tag?placement=a&campaign=b&events=impression&click=https://phish.example/"
    keys = {"collect_signing_keys": {"k1": "a secret of 16 bytes"}, "collect_url": "https://px.example"}
    known = load(redis_url=settings.redis_url, namespace="access", **keys)
    tokens = {"scrape": token(read_all=True), "desk": token(read_all=True, rights=("read", "tag"))}
    reads, tags = asked(
        app_of(known, Access(tokens)), ("GET", asks, bearer("scrape")), ("GET", asks, bearer("desk"))
    )
    assert (reads.status_code, reads.json()) == (
        403,
        {"error": "This token lacks the right tag (AUDIOPIXEL_READ_TOKENS)."},
    )
    assert (tags.status_code, tags.json().keys()) == (503, {"error"}), "the collector alone signs"


def test_the_exporter_requests_tags_from_the_collector_and_explains_refusals(settings: Settings) -> None:
    asks = "/api/tag?placement=a&campaign=b&events=impression"
    readers = Access({"desk": token(read_all=True, rights=("tag",))})

    def answered(**door: Any) -> tuple[int, Any]:
        known = load(redis_url=settings.redis_url, namespace="access", **door)
        (answer,) = asked(app_of(known, readers), ("GET", asks, bearer("desk")))
        return answer.status_code, answer.json()

    signs = {"collect_signing_keys": {"a1": "a secret of 16 bytes"}, "collect_url": "https://px.example"}
    with tag_door(**signs) as door:
        status, built = answered(**door)
        assert status == 200
        assert built["tags"][0]["url"].startswith("https://px.example/p?e=impression&pl=a&cm=b&k=a1.")
        assert answered(**door | {"collect_token": "desk.wrong"})[0] == 502
    assert answered(**door)[0] == 503, "it is gone"
    with tag_door(rights=("write", "debug"), **signs) as door:
        status, refused = answered(**door)
        assert (status, "AUDIOPIXEL_COLLECT_TOKEN" in refused["error"]) == (502, True)


# Without tokens in the settings


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "203.0.113.9"])
@pytest.mark.parametrize("host", ["127.0.0.1:9480", "localhost:9480", "dash.example.com", "[::1"])
def test_a_token_is_created_by_default_and_no_header_is_trusted(
    settings: Settings, peer: str, host: str
) -> None:
    readers = Access()
    app = app_of(settings, readers)
    paths = ("/table", "/metrics/placements", "/v1/placements", "/api/tag", "/events")
    for answer in asked(app, *(("GET", path, {"host": host}) for path in paths), peer=peer):
        assert answer.status_code == 401
        assert "zebra" not in answer.text
    assert readers.created_token is not None
    mine = {"host": host, "authorization": f"Bearer {readers.created_token}"}
    for answer in asked(app, ("GET", "/table", mine), ("GET", "/metrics/placements", mine), peer=peer):
        assert (answer.status_code, "zebra" in answer.text) == (200, True)


def test_a_token_is_created_at_each_start_without_tokens() -> None:
    assert Access().created_token != Access().created_token
    assert access().created_token is None
    assert access().of_token("local.") is None


def test_without_tokens_the_exporter_listens_on_loopback_alone(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="AUDIOPIXEL_READ_TOKENS is not set"):
        serve(settings, "0.0.0.0", 0)


# The stream


def test_a_stream_tells_its_reader_of_the_own_rows_alone(settings: Settings) -> None:
    app = app_of(settings, access())
    feed, sight = app.state.feed, access().of_token(f"mine.{SECRET}")

    async def seen() -> list[bytes]:
        events, found = feed.events(sight), []
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await asyncio.to_thread(feed.tick)
        found.append(await first)
        await asyncio.to_thread(feed.tick)
        found.append(await anext(events))
        await events.aclose()
        return found

    whole, change = asyncio.run(seen())
    assert (whole.split(b"\n")[0], change.split(b"\n")[0]) == (b"event: all", b"event: change")
    assert b"zebra" not in whole + change
    told = json.loads(whole.split(b"data: ")[1])
    assert set(told["rows"]["placement"]) == {"mine-planned", "mine-unplanned"}
    assert set(told["rows"]["campaign"]) == {"c-mine"}
    assert [one["placement"] for one in told["alerts"]] == ["mine-planned"]
    assert (told["status"]["placements"], told["status"]["received"], told["status"]["pending"]) == (
        2,
        None,
        None,
    )


# Settings


def test_a_token_without_rights_and_an_invalid_hash_are_refused() -> None:
    for wrong in (
        {"sha256": "0" * 64},
        {"sha256": "short", "read_all": True},
        {"sha256": "0" * 64, "read": 1},
        {"sha256": "0" * 64, "read_all": True, "rights": []},
        {"sha256": "0" * 64, "read_all": True, "rights": ["write"]},
        {"sha256": "0" * 64, "campaigns": ["c"], "rights": ["read", "tag"]},
    ):
        with pytest.raises(SettingsError, match="AUDIOPIXEL_READ_TOKENS"):
            load(read_tokens={"a": wrong})
    with pytest.raises(SettingsError, match="a token's name"):
        load(read_tokens={"a.b": {"sha256": "0" * 64, "read_all": True}})


def test_config_shows_only_the_rights_of_a_token() -> None:
    settings = load(read_tokens={"a": {"sha256": "5" * 64, "campaigns": ["c-1"]}})
    told = written("read_tokens", settings.read_tokens) + repr(settings)
    assert "5555" not in told
    assert "c-1" in told


def test_the_command_gives_the_exporter_the_plans_of_the_flow(
    tmp_path: Any, settings_of: Callable[..., Settings]
) -> None:
    from flows.cli.owners import owners_of

    plans = tmp_path / "plans.csv"
    plans.write_text(
        "placement_id,booked,start,end,timezone,campaign_id,advertiser\n"
        "a,10,2026-11-02T00:00,2026-11-30T00:00,UTC,c-1,acme\n"
    )
    settings = settings_of(plans=plans)
    owners = owners_of(settings)
    assert owners is not None
    owners.refresh()
    assert owners.placements == {"a": PLANS[0]._replace(placement="a", campaign="c-1")}
    assert owners.campaigns == {"c-1": "acme"}
    plans.unlink()
    with pytest.raises(PlanError):
        owners_of(settings)
    assert owners_of(settings, needed=False) is not None
    assert owners_of(settings_of()) is None


@pytest.mark.parametrize(
    "wrong", ["b,10,2026-11-3O,2026-11-30,UTC,c-1,zebra", "b,10,2026-11-02,UTC,c-1,zebra"]
)
def test_a_wrong_plan_opens_its_campaign_to_no_reader(
    wrong: str, tmp_path: Any, settings_of: Callable[..., Settings]
) -> None:
    from flows.cli.owners import owners_of

    plans = tmp_path / "plans.csv"
    plans.write_text(
        "placement_id,booked,start,end,timezone,campaign_id,advertiser\n"
        f"a,10,2026-11-02T00:00,2026-11-30T00:00,UTC,c-1,acme\n{wrong}\n"
    )
    owners = owners_of(settings_of(plans=plans))
    assert owners is not None
    owners.refresh()
    acme = Sight("acme", False, frozenset(), frozenset({"acme"}), owners)
    assert acme.placement("a", {"campaign_id": "c-1"})
    assert not acme.campaign("c-1")
    assert not acme.placement("b", {"campaign_id": "c-1"})


@pytest.mark.parametrize("sees", [{"advertisers": ["acme"]}, {"read_all": True}, None])
def test_whoever_reads_a_planned_placement_is_of_its_plans_campaign(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, sees: dict[str, Any] | None
) -> None:
    plans = tmp_path / "plans.csv"
    plans.write_text(
        "placement_id,booked,start,end,timezone,campaign_id\na,10,2026-11-02T00:00,2026-11-30T00:00,UTC,c-1\n"
    )
    tokens = {} if sees is None else {"t": {"sha256": "0" * 64, **sees}}
    settings = load(plans=plans, read_tokens=tokens)
    given: list[Owners | None] = []
    monkeypatch.setattr("flows.settings.load", lambda: settings)
    monkeypatch.setattr("flows.viewers.exporter.serve", lambda *_, owners, **__: given.append(owners))
    from flows.cli.exporter import exporter

    exporter()
    (owners,) = given
    assert owners is not None
    owners.refresh()
    assert owners.campaign_of("a", {"campaign_id": "of-a-forged-pixel"}) == "c-1"
