"""A primary, its replica, and a Sentinel that promotes the replica, as servers of their own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from redis import Redis
from redis_support import eventually

from connectors.embedded import EmbeddedValkey
from connectors.ports import free_ports

SERVICE = "pixels"


class Sentinel(EmbeddedValkey):
    """A Sentinel that alone may promote a replica, half a second after the primary's last answer."""

    def __init__(self, primary: EmbeddedValkey, password: str = "") -> None:
        super().__init__({"requirepass": password} if password else {})
        self._primary, self._password = primary, password

    def _command(self, port: int, directory: Path) -> list[str]:
        config = directory / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 2000\n"
            + (f"requirepass {self._password}\n" if self._password else "")
        )
        return [self._binary, str(config), "--sentinel"]


class Pair(ExitStack):
    """A primary with a replica, and their Sentinel."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = self.enter_context(EmbeddedValkey())
        follow = {"replicaof": f"127.0.0.1 {self.primary.port}", "repl-diskless-sync-delay": "0"}
        self.replica = self.enter_context(EmbeddedValkey(follow))
        self.sentinel = self.enter_context(Sentinel(self.primary))
        with Redis(port=self.sentinel.port, decode_responses=True) as client:
            eventually(lambda: client.sentinel_master(SERVICE)["num-slaves"] == 1, 30)  # type: ignore[no-untyped-call, index]

    @property
    def url(self) -> str:
        dead = free_ports(1)[0]
        return f"redis+sentinel://127.0.0.1:{dead},127.0.0.1:{self.sentinel.port}/{SERVICE}"

    def part(self) -> None:
        """Let the replica get no more of the primary's data."""
        with Redis(port=self.primary.port) as primary, Redis(port=self.replica.port) as replica:
            replica.config_set("masteruser", "nobody")
            replica.config_set("masterauth", "wrong")
            primary.execute_command("CLIENT KILL TYPE replica")
            eventually(lambda: replica.info("replication")["master_link_status"] == "down")
