"""Prometheus and Alertmanager on loopback, if they are installed, and the alerts that fire there.

Neither is required, since no wheel contains them. They end with their parent process and leave no
files, as the embedded servers do.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import msgspec

from connectors.embedded import HOST, Server
from connectors.stream import ConnectError

PROGRAMS: Final[Mapping[str, tuple[str, ...]]] = {
    "prometheus": ("prometheus",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
}
"""The names of each program on the PATH: Debian's, and upstream's."""

_WITHIN_S: Final = 2.0
_direct: Final = build_opener(ProxyHandler({}))  # a proxy of the environment cannot reach this loopback


def program(name: str) -> str | None:
    """The path of one of `PROGRAMS`; None if it is not installed."""
    return next((path for one in PROGRAMS[name] if (path := shutil.which(one))), None)


class _Installed(Server):
    def __init__(self, config: Path, port: int | None = None) -> None:
        super().__init__(port)
        self._config = config
        self._program = ""

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start as `Server.start` does. Also raises ConnectError if the program is not installed."""
        self._program = program(self.name) or ""
        if not self._program:
            raise ConnectError(f"{self.name} is not installed")
        super().start()

    def _answers(self, port: int, pid: int) -> bool:
        try:
            _get(f"http://{HOST}:{port}/-/ready")
        except ConnectError:
            return False
        return True


class Prometheus(_Installed):
    """A Prometheus whose data is deleted when it stops.

    Args:
        config: prometheus.yml.
        port: as of `Server`.
    """

    name = "prometheus"

    def _command(self, port: int, directory: Path) -> list[str]:
        return [
            self._program,
            f"--config.file={self._config}",
            f"--storage.tsdb.path={directory}/tsdb",
            f"--web.listen-address={HOST}:{port}",
            # An alert that fires in the first seconds finds no Alertmanager yet; Prometheus soon sends it
            # again.
            "--rules.alert.resend-delay=5s",
            "--log.level=warn",
        ]


class Alertmanager(_Installed):
    """An Alertmanager alone, without a cluster.

    Args:
        config: alertmanager.yml.
        port: as of `Server`.
    """

    name = "alertmanager"

    def firing(self) -> list[dict[str, Any]]:
        """The alerts that fire and are neither silenced nor inhibited, from its API.

        Raises:
            ConnectError: it does not answer.
        """
        body = _get(f"{self.url}/api/v2/alerts?active=true&silenced=false&inhibited=false")
        return msgspec.json.decode(body, type=list[dict[str, Any]])

    def _command(self, port: int, directory: Path) -> list[str]:
        return [
            self._program,
            f"--config.file={self._config}",
            f"--storage.path={directory}",
            f"--web.listen-address={HOST}:{port}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]


def _get(url: str) -> bytes:
    try:
        with _direct.open(url, timeout=_WITHIN_S) as answer:
            return bytes(answer.read())
    except (URLError, OSError, HTTPException) as error:
        raise ConnectError(f"{url} does not answer: {error}") from None
