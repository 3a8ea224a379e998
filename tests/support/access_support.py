"""Readers for the tests of read access: two advertisers' rows by hand, and tokens that see one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
from page_support import now_ms, planned, put_desk
from redis import Redis
from starlette.applications import Starlette

from connectors.redis import connect
from flows.model.redis_keys import day_key
from flows.settings import ReadToken, Settings
from flows.viewers.access import Access, Owner, Owners
from flows.viewers.collectors import Collectors
from flows.viewers.disputed import Disputed
from flows.viewers.exporter import create_app
from flows.viewers.feed import SCOPES
from flows.viewers.minutes_topic import MinutesTopic
from flows.viewers.reader import RowsReader
from flows.viewers.series import FIELDS

SECRET = "a-secret-of-the-tests"
DISPUTED = date(2026, 11, 24)
PLANS = (
    Owner("mine-planned", "c-mine", "acme"),
    Owner("zebra-planned", "zebra-c", "zebra"),
    Owner("zebra-forged", "zebra-c", "zebra"),
    Owner("acme-alone", None, "acme"),
)


def token(**sees: Any) -> ReadToken:
    """The settings of a token, all of which have one secret."""
    return ReadToken(sha256=sha256(SECRET.encode()).hexdigest(), **sees)


TOKENS = {
    "mine": token(campaigns=["c-mine"]),
    "acme": token(advertisers=["acme"]),
    "zebra": token(campaigns=["zebra-c"]),
    "all": token(read_all=True),
}


def access(owners: Iterable[Owner] = PLANS, **more: Any) -> Access:
    """The readers, by plans that never change."""
    plans = [list(owners)]
    return Access(TOKENS, owners=Owners(lambda: plans.pop() if plans else None), **more)


def put_two_advertisers(url: str, namespace: str) -> None:
    """Rows of `mine` and of `zebra`; a forged pixel says that one of zebra's placements is of `c-mine`."""
    now = now_ms()
    version = {"generation": 1, "fence": 2, "rev": 3}
    rows = {
        "mine-planned": planned("under", 0.5, 4_000, now, campaign_id="c-mine", **version),
        "mine-unplanned": {"flight.impressions": 7, "campaign_id": "c-mine", **version},
        "acme-alone": planned("under", 0.5, 4_000, now, campaign_id="zebra-c", **version),
        "zebra-planned": planned(
            "under", 0.5, 4_000, now, campaign_id="zebra-c", station="zebra-fm", **version
        ),
        "zebra-forged": planned("under", 0.5, 4_000, now, campaign_id="c-mine", **version),
        "zebra/../mine-planned": {"flight.impressions": 9, "campaign_id": "zebra-c", **version},
        "{zebra}": {"flight.impressions": 9, "campaign_id": "zebra-c", **version},
        "..": {"flight.impressions": 9, "campaign_id": "zebra-c", "station": "zebra-fm", **version},
    }
    put_desk(url, namespace, rows, now)
    with Redis.from_url(url) as client:
        for scope, name in (
            ("platform", "zebra-platform"), ("station", "zebra-fm"), ("creative", "zebra-creative"),
        ):  # fmt: skip
            client.hset(f"{namespace}:{scope}:{{{name}}}", mapping={"flight.impressions": 5, **version})
            client.zadd(f"{namespace}:index:{scope}", {name: 1})
        client.hset(f"{namespace}:other:{{placement}}", mapping={"flight.impressions": 5, "x": "zebra"})
        sent = {"impressions": 5, "sent": '{"deliveries":424242424}'}
        client.hset(day_key(namespace, "zebra-planned", DISPUTED), mapping=sent)


def app_of(
    settings: Settings, readers: Access, minutes: MinutesTopic | None = None, theirs: Path | None = None
) -> Starlette:
    """The exporter's application, whole; `theirs` is a file of others' counts."""
    url, namespace = settings.redis_url.get_secret_value(), settings.namespace
    client = connect(url, timeout=timedelta(seconds=1))
    board = RowsReader(client, namespace, FIELDS, scopes=SCOPES, interval=timedelta(0))
    beside = Collectors(client, namespace)
    disputed = None if theirs is None else Disputed(theirs, client, namespace, settings.zone, dict)
    app = create_app(
        board, settings=settings, collectors=beside, access=readers, minutes=minutes, disputed=disputed
    )
    app.state.feed.tick()
    return app


def asked(
    app: Starlette,
    *requests: tuple[str, str, Mapping[str, str]],
    peer: str = "203.0.113.9",
    base: str = "https://desk.example",
) -> list[httpx.Response]:
    """The answers to requests (method, path, headers), each path sent as it is written."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            answers = []
            for method, path, headers in requests:
                request = client.build_request(method, base, headers=dict(headers))
                request.url = request.url.copy_with(raw_path=path.encode())
                answers.append(await client.send(request))
            return answers

    return asyncio.run(ask())


def bearer(name: str, secret: str = SECRET) -> dict[str, str]:
    """The header of a reader."""
    return {"authorization": f"Bearer {name}.{secret}"}
