"""The exporter: placements in Redis as Prometheus series, in a process of its own that never slows the flow.

- `/metrics/placements` has the rows, `/metrics` this process, and `/healthz` answers while it serves.
- `/` is the live page (`flows.viewers.page`), `/docs/…` the documents of this version
  (`flows.viewers.documents`).
- `/v1/…` has rows for programs (`flows.viewers.v1`), `/adcp/…` and `/mcp` tasks for agents
  (`flows.viewers.adcp`), and `/api/…` the collectors and tags (`flows.viewers.api`).

Each reader gets the rows of its own sight (`flows.viewers.guard`). Campaigns have series of their pacing
alone. Roll-ups of counters are sums joined with `audiopixel_placement_info`. Reach does not add up, so its
roll-ups are in Redis alone.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Final

import structlog
import uvicorn
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from connectors.http_deadline import InTime
from connectors.ports import family_of, url_of
from connectors.prometheus import metrics_route
from connectors.redis import connect
from flows import metrics
from flows.errors import AudiopixelError, SettingsError
from flows.instruments import WeightedHistogram
from flows.model.plan import Plan
from flows.settings import PREFIX, Settings
from flows.state.allocator import keep_memory
from flows.viewers import adcp_doors, api, documents, guard, page
from flows.viewers.access import Access, Owners
from flows.viewers.adcp import Agent
from flows.viewers.collectors import Collectors, SilentTags
from flows.viewers.compared import Compared
from flows.viewers.disputed import Disputed
from flows.viewers.feed import SCOPES, Feed
from flows.viewers.live import LiveCalls
from flows.viewers.minutes_topic import MinutesTopic
from flows.viewers.platforms import Platforms, PlatformSeries
from flows.viewers.reader import RowsReader
from flows.viewers.row_sentence import tags_of
from flows.viewers.series import CAP, FIELDS, Placements
from flows.viewers.v1 import Api

_GRACE_S: Final = 5
SEND_BUFFER: Final = 256 << 10
"""Bytes that the kernel buffers for each connection."""
_log: Final = structlog.get_logger("exporter")
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def create_app(
    reader: RowsReader,
    *,
    cap: int = CAP,
    settings: Settings | None = None,
    collectors: Collectors | None = None,
    access: Access | None = None,
    minutes: MinutesTopic | None = None,
    disputed: Disputed | None = None,
    plans: Callable[[], Mapping[str, Plan]] = dict,
) -> Starlette:
    """The exporter's web application.

    Args:
        reader: reads at least `FIELDS` of placements, and of campaigns if these are to be shown.
        cap: placements with series of their own; the others are summed as `other`.
        settings, collectors: the sources of `/api/…`, `/adcp/…` and `/mcp`; None: no such addresses.
        access: the readers; None: the reader of a created token, `state.access.created_token`.
        minutes: the topic of minutes; None: no addresses of minutes.
        disputed: others' counts that the page compares with ours, or None.
        plans: returns the plans in force, for a file that is dropped on the page.

    `state.feed` holds the live page's data, and is updated while the application's lifespan runs.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    rendering = WeightedHistogram(metrics.EXPORTER_RENDER, _BUCKETS)
    refreshing = WeightedHistogram(metrics.EXPORTER_REFRESH, _BUCKETS)
    registry.register(rendering)
    registry.register(refreshing)
    view = Placements(cap)
    access = access or Access()
    feed = Feed(reader, owners=access.owners)
    running: list[Callable[[], Awaitable[None]]] = [feed.run, access.owners.keep]
    extra_routes: list[Route] = []
    if settings is not None and collectors is not None:
        feed.tags = tags_of(collectors.read)
        extra_routes = _api(settings, collectors, plans, registry)
    if settings is not None:
        feed.zone = settings.zone
        agent = Agent(reader, settings, access.owners)
        extra_routes += adcp_doors.routes(agent)
        if (tools := adcp_doors.mcp_tools(agent)) is not None:
            extra_routes.append(Route("/mcp", tools, methods=["POST"]))  # without sessions there is no stream
            running.append(tools.run)

    def placements() -> bytes:
        began_s = time.perf_counter()
        snapshot = access.owners.relabelled(reader.refresh())
        read_s = time.perf_counter()
        body = view.render(snapshot)
        refreshing.observe(read_s - began_s)
        rendering.observe(time.perf_counter() - read_s)
        return body

    async def health(_: Request) -> PlainTextResponse:  # even while all threads wait
        return PlainTextResponse("ok\n")

    app = Starlette(
        routes=[
            metrics_route("/metrics/placements", placements),
            metrics_route("/metrics", lambda: generate_latest(registry)),
            Route("/healthz", health),
            *guard.routes(access),
            *page.routes(feed, disputed, minutes is not None),
            *documents.routes(),
            *Api(reader, minutes, access.owners, feed).routes(),
            *extra_routes,
        ],
        lifespan=page.ticking,
        middleware=[Middleware(guard.Guard, access=access)],
    )
    app.state.feed, app.state.running, app.state.access = feed, running, access
    return app


def _api(
    settings: Settings,
    collectors: Collectors,
    plans: Callable[[], Mapping[str, Plan]],
    registry: CollectorRegistry,
) -> list[Route]:
    """The routes of `/api/…`. Registers the metrics of silent tags and platforms, which have the same
    figures.
    """
    client, namespace = collectors.client, collectors.namespace
    platforms = Platforms(client, namespace, collectors)
    registry.register(SilentTags(collectors))
    registry.register(PlatformSeries(platforms))
    compared = Compared(client, namespace, settings.zone, plans)
    return api.routes(settings, collectors, platforms, LiveCalls(client, namespace), compared)


def serve(
    settings: Settings,
    host: str,
    port: int,
    *,
    cap: int = CAP,
    owners: Owners | None = None,
    disputed: Disputed | None = None,
    plans: Callable[[], Mapping[str, Plan]] = dict,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish the open answers and return.

    Args:
        host: the address to listen at; `127.0.0.1` is for this machine alone.
        owners: the owners of the planned placements, by the plans.
        disputed: others' counts that the page compares with ours.
        plans: returns the plans in force.

    Raises:
        AudiopixelError: the address cannot be listened at, or is not loopback and there are no read tokens.
        ConnectError: Redis is away at the start. A later outage raises nothing.
    """
    access = Access(settings.read_tokens, settings.read_session, owners, key=settings.read_session_key)
    with _listen(host, port) as listener:
        if access.created_token is not None and not ip_address(listener.getsockname()[0]).is_loopback:
            raise SettingsError(
                f"{PREFIX}READ_TOKENS is not set, so the exporter serves loopback alone and cannot listen at "
                f"{host}: set read tokens, or listen at 127.0.0.1"
            )
        client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
        reader = RowsReader(client, settings.namespace, FIELDS, scopes=SCOPES)
        collectors = Collectors(client, settings.namespace)
        minutes = MinutesTopic.of_settings(settings)
        app = create_app(
            reader,
            cap=cap,
            settings=settings,
            collectors=collectors,
            access=access,
            minutes=minutes,
            disputed=disputed,
            plans=plans,
        )
        place = url_of(host, port)
        signing_in = "" if access.created_token is None else f"login#token={access.created_token}"
        _log.info("serving", page=f"{place}/{signing_in}", metrics=f"{place}/metrics/placements")
        config = uvicorn.Config(
            app,
            http=InTime,
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        keep_memory()  # costs 30 MB at 10,000 placements, and saves a tenth of a scrape's time
        try:
            with _signals_absorbed():
                server = uvicorn.Server(config)
                app.state.feed.closing = lambda: server.should_exit
                server.run(sockets=[listener])
        finally:
            minutes.close()
            reader.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), family=family_of(host))
        # By default the kernel buffers megabytes for each client that does not read.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        return listener
    except (OSError, OverflowError) as error:
        # Python appends the address to the system's words.
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise AudiopixelError(
            f"the exporter cannot listen at {host}:{port} ({reason}): choose another port or host"
        ) from None


@contextmanager
def _signals_absorbed() -> Iterator[None]:
    """A context that absorbs SIGINT and SIGTERM. Uvicorn raises the signal that ended it once more, which
    would kill the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
