"""The read API: rows, minutes and decisions over HTTP, and the document that describes them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
from access_support import SECRET, access, app_of, asked, bearer, put_two_advertisers
from board_support import eventually
from openapi_spec_validator import OpenAPIV31SpecValidator
from page_support import JUDGED, exporter, silent, unjudged
from redis import Redis
from starlette.applications import Starlette

from connectors.embedded import EmbeddedBroker
from connectors.kafka import Change, KafkaWriter
from flows.model.fields import CURRENCY, FIELDS, IMPRESSION_BASIS, LABELS, REACH_UNIT
from flows.settings import Settings, load
from flows.viewers.minutes_topic import MinutesTopic, MinutesUnread, StoredMinutes
from flows.viewers.openapi import document
from flows.viewers.rows_json import TEXTS, csv_of, fields_json, value_of

ROOT = Path(__file__).parents[3]
MINUTE = {"minute_ms": 60_000, "state": "provisional", "rev": 1, "as_of_ms": 60_000, "impressions": 2}


def minute(placement: str, minute_ms: int, **more: Any) -> bytes:
    """A value of the topic of minutes."""
    return msgspec.json.encode(MINUTE | {"placement_id": placement, "minute_ms": minute_ms} | more)


class Table:
    """A topic that has been read to its end at once."""

    caught_up = True

    def __init__(self, *values: bytes) -> None:
        self._changes = [Change(0, place, 0, b"k", value) for place, value in enumerate(values)]

    def read(self, wait: timedelta) -> list[Change]:
        found, self._changes = self._changes, []
        if not found:
            time.sleep(wait.total_seconds())
        return found

    def partitions(self) -> list[int]:
        return [0]

    @property
    def trouble(self) -> str:
        return "Kafka is away"

    def close(self) -> None: ...


def decision(order: str, campaign: str | None, *credited: str | None) -> str:
    """A decision as Redis has it."""
    credits = [
        {"placement_id": f"of-{one}", "campaign_id": one, "way": "click", "millionths": 1, "touched_at": 1}
        for one in credited
    ]
    body = {
        "conversion": order,
        "type": "purchase",
        "campaign_id": campaign,
        "rule": "linear",
        "credits": credits,
    }
    return json.dumps(body)


@pytest.fixture(scope="module")
def settings(valkey: Any) -> Settings:
    put_two_advertisers(valkey.url, "readapi")
    with Redis.from_url(valkey.url) as client:
        client.hset(
            "readapi:placement:{mine-planned}", mapping={"station": "=cmd()", "flight.reach": str(2**60)}
        )
        decisions = {
            "mine": decision("order-1", "c-mine", "c-mine", None),
            "zebra": decision("order-1", "zebra-c", "zebra-c"),
            "mixed": decision("order-1", "c-mine", "c-mine", "zebra-c"),
            "none": decision("order-1", None, "c-mine"),
            "damaged": "{",
        }
        client.hset("readapi:conversion:{order-1}", mapping=decisions)
        told = {"hash": "mine-planned", "version": "1", "rules": {}, "metrics": {}}
        client.hset("readapi:methodology:{mine-planned}", "text", json.dumps(told))
        client.hset("readapi:meta", "methodology", "mine-planned")
        client.hset("readapi:conversion:{zebra-order}", mapping={"zebra": decisions["zebra"]})
    return load(redis_url=valkey.url, namespace="readapi")


@pytest.fixture(scope="module")
def minutes() -> Iterator[MinutesTopic]:
    table: Any = Table(
        minute("mine-planned", 120_000),
        minute("mine-planned", 60_000, state="final"),
        minute("mine-planned", 60_000, impressions=9),
        minute("zebra-planned", 60_000),
        b"no minute",
        minute("mine-planned", 120_000, impressions=5),
    )
    topic = MinutesTopic(lambda: table)
    yield topic
    topic.close()


@pytest.fixture(scope="module")
def app(settings: Settings, minutes: MinutesTopic) -> Starlette:
    return app_of(settings, access(), minutes)


def get(app: Starlette, path: str, name: str = "mine", **headers: str) -> httpx.Response:
    (answer,) = asked(app, ("GET", f"/v1/{path}", {**bearer(name), **headers}))
    return answer


def lines(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_a_placement_has_its_version_times_and_contract_fields(
    app: Starlette,
) -> None:
    row = get(app, "placements/mine-planned").json()
    assert (row["scope"], row["id"]) == ("placement", "mine-planned")
    assert row["version"] == {"generation": 1, "fence": 2, "rev": 3}
    assert row["final_through_ms"] < row["as_of_ms"]
    assert row["fields"]["delivery.state"] == "under"
    assert row["fields"]["delivery.indicator"] == 0.5
    assert row["fields"]["flight.starts"] == 200
    assert row["fields"]["flight.reach"] == str(2**60), "no double holds it"
    assert get(app, "campaigns/c-mine").json()["fields"]["delivery.state"] == "on_track"


def test_texts_stay_texts_and_are_those_of_the_flow() -> None:
    assert value_of("station", "123") == "123"
    assert value_of("flight.reach", "nan") is None
    assert value_of("flight.cost", "1.5") == 1.5
    told = {IMPRESSION_BASIS: "mixed", REACH_UNIT: "household"}
    assert fields_json(told) == told
    waiting = {"delivery.unjudged_reason": "feed_silent", "delivery.unjudged_by": "12"}
    assert fields_json(waiting) == waiting
    opening = {
        "delivery.unknown_reason": "late_plan",
        "delivery.delivered_before_source": "12",
        "delivery.alerted_state": "under",
    }
    assert fields_json(opening) == opening
    ours = {*LABELS, CURRENCY, *told, *waiting, *opening, "delivery.state", "delivery.currency"}
    assert TEXTS & set(FIELDS) == ours & set(FIELDS)


def test_json_csv_and_meta_name_a_rows_silent_feed(
    valkey: Any,
) -> None:
    namespace, since_ms = "readapi-silent", 1_764_086_400_000
    unit = "platform:=cmd()"
    put_two_advertisers(valkey.url, namespace)
    feeds = {unit: silent(since_ms, 1, GBP="12.34")}
    with Redis.from_url(valkey.url) as client:
        client.hset(f"{namespace}:placement:{{mine-planned}}", mapping=unjudged(unit, since_ms))
        client.hset(f"{namespace}:placement:{{zebra-planned}}", mapping=JUDGED)
        client.hset(f"{namespace}:meta", "silent", json.dumps(feeds))
    app = app_of(load(redis_url=valkey.url, namespace=namespace), access())
    told = {
        "delivery.judged": 0,
        "delivery.unjudged_reason": "feed_silent",
        "delivery.unjudged_since_ms": since_ms,
        "delivery.unjudged_by": unit,
    }
    fields = get(app, "placements/mine-planned").json()["fields"]
    assert {name: fields[name] for name in told} == told
    assert get(app, "placements/zebra-planned", "zebra").json()["fields"]["delivery.judged"] == 1
    for path in ("placements/mine-planned?format=csv", "placements?format=csv"):
        line = next(one for one in lines(get(app, path)) if one["placement"] == "mine-planned")
        assert {name: line[name] for name in told} == {name: str(of) for name, of in told.items()}
    assert get(app, "meta", "all").json()["silent"] == feeds
    assert "silent" not in get(app, "meta").json()
    described = document()["components"]["schemas"]
    money = {f"delivery.{name}" for name in ("at_stake", "at_stake_end", "blocked_at_stake")}
    assert set(told) | money == set(described["Row"]["properties"]["fields"]["properties"])
    assert "silent" in described["Meta"]["properties"]


def test_a_known_version_is_not_sent_again(app: Starlette) -> None:
    answer = get(app, "placements/mine-planned")
    tag = answer.headers["etag"]
    assert tag == '"1.2.3"'
    for known in (tag, f'"0.0.0", W/{tag}', "*"):
        again = get(app, "placements/mine-planned", **{"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    for other in ('"1.2.2"', "1.2.3", ""):
        assert get(app, "placements/mine-planned", **{"if-none-match": other}).status_code == 200
    assert get(app, "placements/mine-planned?format=csv", **{"if-none-match": tag}).status_code == 200
    assert get(app, "placements/zebra-planned", **{"if-none-match": "*"}).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "placements",
        "campaigns",
        "placements/mine-planned",
        "placements/mine-planned/minutes",
        "placements/of-nobody",
        "meta",
    ],
)
@pytest.mark.parametrize("query", ["format=AAA", "format=", "format=CSV", "format=AAA&format=csv"])
def test_an_unknown_format_is_refused(app: Starlette, path: str, query: str) -> None:
    answer = get(app, f"{path}?{query}")
    assert (answer.status_code, answer.json()) == (400, {"error": "format is json or csv."})


def test_a_row_is_csv_on_request_without_formulas(app: Starlette) -> None:
    for answer in (
        get(app, "placements/mine-planned?format=csv"),
        get(app, "placements/mine-planned", accept="text/csv"),
    ):
        (line,) = lines(answer)
        assert (line["placement"], line["rev"], line["delivery.state"]) == ("mine-planned", "3", "under")
        assert line["station"] == "'=cmd()"


def test_lists_hold_the_rows_in_sight_by_id(app: Starlette) -> None:
    rows = get(app, "placements").json()
    assert ([row["id"] for row in rows["placements"]], rows["after"]) == (
        ["mine-planned", "mine-unplanned"],
        None,
    )
    assert [row["id"] for row in get(app, "placements?after=mine-planned").json()["placements"]] == [
        "mine-unplanned"
    ]
    assert [row["id"] for row in get(app, "campaigns", "all").json()["campaigns"]] == ["c-mine", "zebra-c"]
    assert [line["placement"] for line in lines(get(app, "placements?format=csv"))] == [
        "mine-planned",
        "mine-unplanned",
    ]
    # The plan decides, whatever a pixel says: a forged one moves no placement, and borrows none.
    of = get(app, "placements?campaign=zebra-c", "all").json()["placements"]
    assert [row["id"] for row in of] == [
        "..",
        "zebra-forged",
        "zebra-planned",
        "zebra/../mine-planned",
        "{zebra}",
    ]


def test_an_id_is_one_path_segment_or_in_the_query(app: Starlette) -> None:
    for path, name in (
        ("placements/zebra%2F..%2Fmine-planned", "zebra/../mine-planned"),
        ("placements/%7Bzebra%7D", "{zebra}"),
        ("placements/%2e%2e", ".."),
    ):
        assert get(app, path, "zebra").json()["id"] == name
    (row,) = get(app, "placements?id=..", "zebra").json()["placements"]
    assert (row["id"], row["fields"]["flight.impressions"]) == ("..", 9)
    assert get(app, "placements/zebra/../mine-planned", "zebra").status_code == 404


@pytest.mark.parametrize("name", ["two\nlines", "\nlast\n", "\r", "\u2028", "\x00"])
def test_an_id_of_several_lines_is_one_segment(app: Starlette, valkey: Any, name: str) -> None:
    with Redis.from_url(valkey.url) as client:
        client.hset(f"readapi:placement:{{{name}}}", mapping={"flight.impressions": 3, "rev": 1})
    path = f"placements/{quote(name, safe='')}"
    assert get(app, path, "all").json()["id"] == name
    assert get(app, path, "mine").status_code == 404


@pytest.mark.parametrize("first", [*"=+-@\t\r\n", *"＝＋－＠"])
def test_no_text_is_a_formula_whatever_it_begins_with(first: str) -> None:
    sheet = csv_of(
        ("placement", "flight.cost"), [{"placement": f"{first}1", "flight.cost": "-1"}], {"placement"}
    )
    (line,) = csv.DictReader(io.StringIO(sheet, newline=""))
    assert line == {"placement": f"'{first}1", "flight.cost": "-1"}


def test_other_scopes_and_totals_need_the_right_to_everything(app: Starlette) -> None:
    for path in ("stations/zebra-fm", "platforms/zebra-platform", "other/placement"):
        assert get(app, path, "all").json()["fields"]["flight.impressions"] == 5
        hidden, absent = get(app, path), get(app, "placements/nobody")
        assert (hidden.status_code, hidden.content) == (404, absent.content)
    assert {"flushed_ms", "watermark_ms", "judged"} == set(get(app, "meta").json())


def test_no_reader_gets_the_fingerprint_of_the_listeners_key(app: Starlette, settings: Settings) -> None:
    url, key = settings.redis_url.get_secret_value(), f"{settings.namespace}:meta"
    with Redis.from_url(url) as client:
        client.hset(key, mapping={"listener_key": "1e10", "forgotten_sum": "00000000000000ff"})
        try:
            told = get(app, "meta", "all").json()
        finally:
            client.hdel(key, "listener_key", "forgotten_sum")
    assert "flushed_ms" in told
    assert not {"listener_key", "forgotten_sum"} & told.keys()


def test_minutes_are_returned_final_or_provisional(app: Starlette) -> None:
    told = get(app, "placements/mine-planned/minutes").json()
    assert (told["placement"], told["kept_since_ms"]) == ("mine-planned", None)
    found = [(one["minute_ms"], one["state"], one["impressions"]) for one in told["minutes"]]
    assert found == [(60_000, "final", 2), (120_000, "provisional", 5)]
    assert [line["minute_ms"] for line in lines(get(app, "placements/mine-planned/minutes?format=csv"))] == [
        "60000",
        "120000",
    ]
    assert get(app, "placements/zebra-planned/minutes").status_code == 404
    assert get(app, "placements/mine-unplanned/minutes").json()["minutes"] == []


def test_minutes_come_from_the_topic_of_the_settings_and_follow_it() -> None:
    with EmbeddedBroker() as broker:
        settings = load(kafka_brokers=broker.bootstrap)
        broker.create_topic(settings.kafka_minutes_topic, 1)
        writer = KafkaWriter(broker.bootstrap, settings.kafka_minutes_topic)
        writer.write([(b"a|60000", minute("a", 60_000))])
        writer.flush()
        topic = MinutesTopic.of_settings(settings)
        eventually(lambda: states(topic) == ["provisional"])
        writer.write([(b"a|60000", minute("a", 60_000, state="final"))])
        writer.close()
        eventually(lambda: states(topic) == ["final"])
        topic.close()


def states(topic: MinutesTopic) -> list[str]:
    """The states of the minutes of `a`; none while the topic is being read."""
    try:
        return [one["state"] for one in topic.of_placement("a")[1]]
    except MinutesUnread:
        return []


def test_minutes_are_unavailable_only_during_an_outage_of_kafka(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OUTAGE_S", "RETRY_S"):
        monkeypatch.setattr(f"flows.viewers.minutes_topic.{name}", 0.3)
    tables = [Table(minute("a", 60_000)), Table(minute("a", 60_000, state="final"))]
    opened: list[Any] = []

    def table() -> Any:
        if not tables:
            raise MinutesUnread("Kafka is away")
        opened.append(tables.pop(0))
        return opened[-1]

    topic = MinutesTopic(table)
    topic.wait_s = 0
    eventually(lambda: states(topic) == ["provisional"])
    opened[0].caught_up = False
    tables, later = [], tables
    with pytest.raises(MinutesUnread, match="Kafka is away"):
        eventually(lambda: not topic.of_placement("a"))
    tables = later
    eventually(lambda: states(topic) == ["final"])
    topic.close()


def test_added_partitions_are_read_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.viewers.minutes_topic.POLL_S", 0.0)
    first, second = Table(), Table(minute("a", 60_000))
    tables: list[Any] = [first, second]
    topic = MinutesTopic(lambda: tables.pop(0))
    eventually(lambda: topic.of_placement("a") == (0, []))
    for one in (first, second):
        monkeypatch.setattr(one, "partitions", lambda: [0, 1])
    eventually(lambda: states(topic) == ["provisional"])
    topic.close()


def test_kept_minutes_are_bounded_with_a_begin() -> None:
    kept = StoredMinutes(max_bytes=2_000)
    for place in range(50):
        kept.take(minute("a", place * 60_000))
    found = kept.of_placement("a")
    assert 2 <= len(found) < 10
    assert kept.since_ms == found[0]["minute_ms"]
    kept.take(minute("a", 0))
    assert kept.of_placement("a") == found


def test_an_unreadable_topic_of_minutes_is_read_again(settings: Settings) -> None:
    def away() -> Any:
        raise MinutesUnread("Kafka is away")

    topic = MinutesTopic(away)
    topic.wait_s = 0.05
    with pytest.raises(MinutesUnread):
        topic.of_placement("a")
    app = app_of(settings, access(), topic)
    answer, plain = (
        get(app, "placements/mine-planned/minutes", "all"),
        get(app, "placements/mine-planned/minutes"),
    )
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (
        503,
        {"error": "Kafka is away"},
        "5",
    )
    assert plain.json() == {"error": "The numbers cannot be read now."}
    topic.close()


def test_a_decision_is_visible_to_the_owner_of_all_its_names(app: Starlette) -> None:
    assert len(get(app, "conversions/order-1", "all").json()["decisions"]) == 4
    (mine,) = get(app, "conversions/order-1").json()["decisions"]
    assert (mine["campaign_id"], len(mine["credits"])) == ("c-mine", 2)
    (zebra,) = get(app, "conversions/order-1", "zebra").json()["decisions"]
    assert zebra["campaign_id"] == "zebra-c"
    assert get(app, "conversions/zebra-order").status_code == 404


def test_the_document_is_openapi_3_1_and_tells_of_every_address(app: Starlette) -> None:
    found = get(app, "openapi.json").json()
    assert found == document()
    OpenAPIV31SpecValidator(found).validate()
    known = {"id": "mine-planned", "scope": "placement"}
    for path in found["paths"]:
        name = {
            "/v1/conversions/{id}": "order-1",
            "/v1/other/{id}": "placement",
            "/v1/campaigns/{id}": "c-mine",
        }
        scoped = {"/v1/stations/{id}": "zebra-fm", "/v1/platforms/{id}": "zebra-platform"}
        if path in ("/v1/podcasts/{id}", "/v1/programs/{id}", "/v1/creatives/{id}", "/v1/apps/{id}"):
            continue
        asked_for = path.removeprefix("/v1/").replace("{id}", {**name, **scoped}.get(path, known["id"]))
        assert get(app, asked_for, "all").status_code == 200, path


GENERATOR = shutil.which("openapi-python-client", path=str(Path(sys.executable).parent)) or shutil.which(
    "openapi-python-client"
)


@pytest.mark.skipif(
    GENERATOR is None, reason="needs openapi-python-client: pipx install openapi-python-client"
)
def test_a_generated_client_reads_a_placement(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(document()))
    assert GENERATOR is not None
    made = [GENERATOR, "generate", "--path", "openapi.json", "--meta", "none", "--output-path", "client"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    code = (
        "import sys\n"
        "from client import AuthenticatedClient\n"
        "from client.api.default import get_placement as get\n"
        "client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])\n"
        "row = get.sync('mine-planned', client=client)\n"
        "other = get.sync_detailed('zebra-planned', client=client).status_code.value\n"
        "print(row.id, row.version.rev, row.fields['delivery.state'], other)\n"
    )
    url = settings.redis_url.get_secret_value()
    with exporter(url, settings.namespace, access=access()) as port:
        call = [str(Path(GENERATOR).resolve().parent / "python"), "-c", code]
        done = subprocess.run(
            [*call, f"http://127.0.0.1:{port}", f"mine.{SECRET}"],
            cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.stdout.split() == ["mine-planned", "3", "under", "404"]


def test_the_documents_examples_equal_the_answers(app: Starlette) -> None:
    block = re.search(r"```console\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S)
    assert block is not None
    examples = re.findall(r"^\$ curl .*:9480/v1/([^' \n]*)'?\n((?:[^$\n].*\n)+)", block[1], re.M)
    assert len(examples) == 4
    for path, wanted in examples:
        assert get(app, path).text.split() == wanted.split()


def test_the_course_of_a_flight_is_for_its_readers_alone(app: Starlette) -> None:
    found = get(app, "placements/mine-planned/course").json()
    assert found["placement"] == "mine-planned"
    assert len(found["minutes"]["at_ms"]) in (1_439, 1_440), "of a flight that began a day ago"
    assert found["minutes"]["final_through_ms"] == 120_000
    assert get(app, "placements/zebra-planned/course").status_code == 404
    assert set(found) == set(document()["components"]["schemas"]["Course"]["properties"])


def test_a_placement_has_its_sentence_in_the_requested_zone(settings: Settings) -> None:
    client = Redis.from_url(settings.redis_url.get_secret_value())
    row = {
        "delivery.state": "paused",
        "delivery.judged": "1",
        "delivery.booked": "900",
        "delivery.delivered": "9",
    }
    rows = {"delivery.state": "not_started", "delivery.judged": "1", "delivery.start_ms": "4102444800000"}
    with client.pipeline() as pipe:
        for name, fields in (("mine-paused", row), ("mine-to-come", rows)):
            pipe.hset(f"readapi:placement:{{{name}}}", mapping={**fields, "campaign_id": "c-mine"})
        pipe.execute()
    try:
        told = app_of(settings, access(), None)
        for name, said in (
            ("mine-paused", "Paused by its plan: 9 of 900 impressions."),
            ("mine-to-come", "Not started: it begins 1 Jan, 00:00."),
            ("mine-to-come?zone=Asia/Tokyo", "Not started: it begins 1 Jan, 09:00."),
            ("mine-to-come?zone=../../etc/passwd", "Not started: it begins 1 Jan, 00:00."),
        ):
            found = get(told, f"placements/{name}").json()
            assert found["sentence"].endswith(said), found["sentence"]
        (opened,) = asked(told, ("GET", "/row?id=mine-to-come&zone=Asia/Tokyo", bearer("mine")))
        assert opened.json()["sentence"] == "Not started: it begins 1 Jan, 09:00."
    finally:
        client.delete("readapi:placement:{mine-paused}", "readapi:placement:{mine-to-come}")
        client.close()
