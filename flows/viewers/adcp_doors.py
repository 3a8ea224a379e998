"""The doors of the AdCP tasks: `POST /adcp/TASK` with a JSON object, and the same tasks as MCP tools at
`/mcp`.

MCP needs the package `mcp` (`pip install audiopixel[mcp]`). Without the package there is no `/mcp`.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any, Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.stream import ConnectError
from flows.errors import UNREADABLE
from flows.viewers.access import Sight
from flows.viewers.adcp import MAX_BUYS, Agent, Body, Refused
from flows.viewers.guard import body_within, sight_of

MAX_BODY_BYTES: Final = 64 << 10
"""The most bytes of a request's body."""
_HEADERS: Final = {
    "content-type": "application/json",
    "cache-control": "private, no-store",
    "x-content-type-options": "nosniff",
}
_BUYS: Final = {
    "type": "array",
    "items": {"type": "string"},
    "maxItems": MAX_BUYS,
    "description": "Campaigns; left out: all in sight.",
}
_ACCOUNT: Final = {"type": "object", "properties": {"account_id": {"type": "string"}}}
_COMMON: Final = {
    "adcp_version": {"type": "string"},
    "context": {"type": "object"},
    "ext": {"type": "object"},
}
TASKS: Final = {
    "get_adcp_capabilities": ("What this measurement agent measures.", {}),
    "get_media_buy_delivery": (
        "Delivery of campaigns (media buys) and their placements (packages) so far: impressions, spend, "
        "completion, quartiles, reach, conversions, pacing, and whether they are final.",
        {"account": _ACCOUNT, "media_buy_ids": _BUYS, "status_filter": {"type": ["string", "array"]}},
    ),
    "get_reporting_status": (
        "Health of the reporting: up to when the numbers go, and whether they are late or final.",
        {"account": _ACCOUNT, "media_buy_ids": _BUYS, "view": {"type": "string", "enum": ["summary"]}},
    ),
}
"""The tasks, each with its description and the JSON schema of its arguments."""


def answer(agent: Agent, task: str, request_body: Body, sight: Sight) -> tuple[Body, int]:
    """The answer to a task, and its HTTP status."""
    try:
        return agent.call(task, request_body, sight), 200
    except Refused as error:
        refused = error
    except ConnectError as error:
        message = str(error) if sight.everything else "The numbers cannot be read now."
        refused = Refused("SERVICE_UNAVAILABLE", message, 503)
    context = {"context": request_body["context"]} if isinstance(request_body.get("context"), dict) else {}
    return refused.body(task, request_body) | context, refused.status


def routes(agent: Agent) -> list[Route]:
    """The tasks over plain HTTP."""

    async def task(request: Request) -> Response:
        name, body = request.path_params["task"], await body_within(request, MAX_BODY_BYTES)
        if body is None:
            words = f"takes at most {MAX_BODY_BYTES:,} bytes"
            return _json(Refused("INVALID_REQUEST", words).body(name), 413)
        try:
            request_body = msgspec.json.decode(body or b"{}", type=dict[str, Any])
        except UNREADABLE:
            return _json(Refused("INVALID_REQUEST", "takes a JSON object").body(name), 400)
        answer_and_status = await run_in_threadpool(answer, agent, name, request_body, sight_of(request))
        try:
            return _json(*answer_and_status)
        except RecursionError:  # the encoder needs more stack than the decoder
            return _json(Refused("INVALID_REQUEST", "takes a context of fewer levels").body(name), 400)

    return [Route("/adcp/{task}", task, methods=["POST"])]


def _json(body: Body, status: int) -> Response:
    return Response(msgspec.json.encode(body), status, _HEADERS)


class McpTools:
    """The tasks as MCP tools, over streamable HTTP without sessions; loaded at the first request."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._requested, self._ready = asyncio.Event(), asyncio.Event()
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, as ASGI passes it."""
        self._requested.set()
        await self._ready.wait()
        assert self._app is not None
        await self._app(scope, receive, send)

    async def run(self) -> None:
        """Serve from the first request on, until cancelled."""
        await self._requested.wait()
        # Imported at the first request: the import takes a second of processor time and 40 MB.
        manager = await asyncio.to_thread(_manager, self._agent)
        async with manager.run():
            self._app = manager.handle_request
            self._ready.set()
            await asyncio.Event().wait()


def _manager(agent: Agent) -> Any:
    import mcp_types as types
    from mcp.server.lowlevel import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    async def list_tools(*_: Any) -> types.ListToolsResult:
        tasks = {
            name: (words, {"type": "object", "properties": {**takes, **_COMMON}})
            for name, (words, takes) in TASKS.items()
        }
        return types.ListToolsResult(
            tools=[
                types.Tool(name=name, description=words, input_schema=schema)
                for name, (words, schema) in tasks.items()
            ]
        )

    async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        request_body, sight = params.arguments or {}, sight_of(ctx.request)
        body, status = await run_in_threadpool(answer, agent, params.name, request_body, sight)
        text = types.TextContent(type="text", text=msgspec.json.encode(body).decode())
        return types.CallToolResult(content=[text], structured_content=body, is_error=status != 200)

    return StreamableHTTPSessionManager(
        Server("audiopixel", on_list_tools=list_tools, on_call_tool=call_tool),
        json_response=True, stateless=True, max_request_body_size=MAX_BODY_BYTES,
    )  # fmt: skip


def mcp_tools(agent: Agent) -> McpTools | None:
    """The tools; None without the package `mcp`."""
    return McpTools(agent) if find_spec("mcp") else None
