"""The address of /live, /ready and /metrics: of both families, and refused in words where there is none."""

from __future__ import annotations

import socket
from http.client import HTTPConnection
from typing import Any, cast

import pytest
from door_support import free_port

from flows.collector.instruments import Instruments, health_server
from flows.collector.ledger import Ledger
from flows.errors import SettingsError


def serve(host: str, port: int) -> Any:
    return health_server(host, port, Instruments(Ledger()), lambda: True, lambda: cast(Any, None))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_is_served_at_an_address_of_either_family(host: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        try:
            one.bind((host, 0))
        except OSError:
            pytest.skip(f"give this machine the loopback address {host}")
    port = free_port()
    end = serve(host, port)
    connection = HTTPConnection(host, port, timeout=10)
    connection.request("GET", "/ready")
    assert connection.getresponse().status == 200
    end()


def test_a_port_beyond_65535_is_refused_with_advice() -> None:
    with pytest.raises(SettingsError, match="set AUDIOPIXEL_COLLECT_HEALTH_PORT lower"):
        serve("127.0.0.1", 65535 + 1)
