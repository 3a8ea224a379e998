"""AdCP's own clients, in Python and in JavaScript, against the exporter's MCP tools.

The Python client needs an interpreter that has it: `python -m venv .venv/adcp` and
`.venv/adcp/bin/pip install adcp==9.2.0`, or ADCP_PYTHON=INTERPRETER. The JavaScript client needs node, and
npm, which installs it into a folder that is thrown away; or `.venv/adcp-js`, or ADCP_SDK=FOLDER, where it is
installed already.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from access_support import SECRET, access, put_two_advertisers
from page_support import exporter, now_ms, planned
from redis import Redis

from connectors.embedded import EmbeddedValkey
from flows.settings import load

PYTHON_CLIENT, SDK = "adcp==9.2.0", "@adcp/sdk@6.11.0"
INTERPRETER = Path(os.environ.get("ADCP_PYTHON", Path(sys.prefix) / "adcp" / "bin" / "python"))
NEEDS_PYTHON = (
    f"needs AdCP's Python client: python -m venv .venv/adcp && .venv/adcp/bin/pip install {PYTHON_CLIENT}"
)
NEEDS_SDK = f"needs node, and npm that reaches its registry, for AdCP's JavaScript client, {SDK}"
WITH_PYTHON = """
import asyncio, json, sys
from adcp import ADCPClient, AgentConfig, GetMediaBuyDeliveryRequest, GetReportingStatusRequest, Protocol
from adcp.compat.versions import negotiate_version

async def main(address, token=None):
    config = AgentConfig(
        id="audiopixel", agent_uri=address, protocol=Protocol.MCP, auth_token=token,
        auth_header="Authorization", auth_type="bearer", mcp_transport="streamable_http",
    )
    asked = {"view": "summary", "account": {"account_id": "mine"}}
    async with ADCPClient(config) as client:
        capabilities = await client.fetch_capabilities()
        versions = [str(one) for one in capabilities.adcp.supported_versions]
        delivery = await client.get_media_buy_delivery(GetMediaBuyDeliveryRequest())
        status = await client.get_reporting_status(GetReportingStatusRequest.model_validate(asked))
    found = {
        "version": negotiate_version(versions, maximum="3.2"),
        "capabilities": {"success": True, "error": None, "data": capabilities.model_dump(mode="json")},
    }
    for name, result in (("delivery", delivery), ("status", status)):
        data = result.data.model_dump(mode="json", exclude_none=True) if result.data else None
        found[name] = {"success": result.success, "error": result.error, "data": data}
    print(json.dumps(found))

asyncio.run(main(*sys.argv[1:]))
"""
Client = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with EmbeddedValkey() as server:
        put_two_advertisers(server.url, "adcp")
        with Redis.from_url(server.url) as client:
            client.hset("adcp:campaign:{c-mine}", mapping=planned("under", 0.5, 4_000, now_ms()))
            client.hset("adcp:meta", mapping={"generation": 1, "fence": 2, "rev": 9, "methodology": "m-1"})
        settings = load(redis_url=server.url, namespace="adcp")
        with exporter(server.url, "adcp", access=access(), settings=settings) as port:
            yield f"http://127.0.0.1:{port}/mcp"


def ran(command: list[str], folder: Path | None = None) -> dict[str, Any]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def in_python() -> Client:
    if not INTERPRETER.exists():
        pytest.skip(NEEDS_PYTHON)
    return lambda *said: ran([str(INTERPRETER), "-c", WITH_PYTHON, *said])


@pytest.fixture(scope="module")
def in_javascript(tmp_path_factory: pytest.TempPathFactory) -> Client:
    node, npm = shutil.which("node"), shutil.which("npm")
    folder = Path(os.environ.get("ADCP_SDK", Path(sys.prefix) / "adcp-js"))
    if node is None or npm is None:
        pytest.skip(NEEDS_SDK)
    if not (folder / "node_modules").exists():
        folder = tmp_path_factory.mktemp("sdk")
        install = [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", SDK]
        try:
            subprocess.run(install, cwd=folder, check=True, timeout=180, capture_output=True)
        except (subprocess.SubprocessError, OSError):
            pytest.skip(NEEDS_SDK)
    # node looks for packages next to the script that imports them.
    script = tmp_path_factory.mktemp("client") / "adcp_client.mjs"
    script.write_text(Path(__file__).with_name(script.name).read_text())
    (script.parent / "node_modules").symlink_to(folder / "node_modules")
    return lambda *said: ran([node, str(script), *said], script.parent)


@pytest.mark.timeout(480)
@pytest.mark.parametrize("language", ["python", "javascript"])
def test_an_official_client_reads_delivery_and_status(
    language: str, address: str, request: pytest.FixtureRequest
) -> None:
    """The clients once refused `3.2-beta`, and refused to read delivery from a seller without `media_buy`."""
    client: Client = request.getfixturevalue(f"in_{language}")
    found = client(address, f"mine.{SECRET}")
    assert found.pop("version", "3.2") == "3.2"
    assert [(name, one["success"], one["error"]) for name, one in found.items()] == [
        ("capabilities", True, None),
        ("delivery", True, None),
        ("status", True, None),
    ]
    assert found["capabilities"]["data"]["supported_protocols"] == ["media_buy", "measurement"]
    (buy,) = found["delivery"]["data"]["media_buy_deliveries"]
    assert (buy["media_buy_id"], buy["totals"]["impressions"]) == ("c-mine", 1_000)
    assert found["status"]["data"]["scope"]["media_buy_ids"] == ["c-mine"]


@pytest.mark.timeout(480)
@pytest.mark.parametrize("language", ["python", "javascript"])
def test_a_client_without_a_token_reads_only_the_capabilities(
    language: str, address: str, request: pytest.FixtureRequest
) -> None:
    client: Client = request.getfixturevalue(f"in_{language}")
    found = client(address)
    assert found["capabilities"]["success"]
    for name in ("delivery", "status"):
        assert not found[name]["success"]
        assert "Show a read token" in found[name]["error"]
