"""The address of a Redis: a node, the seeds of a cluster, or Sentinels that name the primary.

- `redis://[user:password@]host:port[/db]`, `rediss://…` (TLS), `unix:///path`: a node, a seed of a cluster.
- `redis://[user:password@]host:port,host:port`: several seeds of a cluster, of which some may be dead.
  `redis+cluster://` is the same.
- `redis+sentinel://[user:password@]host:port,host:port/service[/db]`, `rediss+sentinel://…`: the primary that
  the Sentinels name. User and password are the primary's. Those of the Sentinels stand behind the `?`, as
  `sentinel_username` and `sentinel_password`. `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` are for both.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from connectors.stream import ConnectError

SENTINEL_PORT: Final = 26379
_URL: Final = re.compile(
    r"(?P<scheme>redis|rediss|unix)(?:\+(?P<kind>cluster|sentinel))?://(?P<login>(?:[^@/?#]*@)?)"
    r"(?P<hosts>[^@/?#]*)(?P<path>(?:/[^@?#]*)?)(?:\?(?P<query>[^@#]*))?"
)
_SENTINEL: Final = {"username", "password", "ssl", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_MALFORMED: Final = (
    "the Redis URL is malformed: write redis://user:password@host:port/db, redis://host:port,host:port for a "
    "cluster, or redis+sentinel://host:port,host:port/service, and in user and password %40 for @, %2F for "
    "/, %23 for #, %3F for ?"
)


class Address(NamedTuple):
    """A parsed URL. Its text shows neither user, password nor options.

    Attributes:
        scheme: `redis`, `rediss` or `unix`.
        kind: `node`, `cluster` or `sentinel`.
        login: user and password as in the URL, with their `@`; else empty.
        hosts: names or IP addresses with their ports, None for a scheme's own.
        path: behind the hosts, with its `/`.
        query: behind the `?`.
    """

    scheme: str
    kind: str
    login: str
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    query: str

    def __str__(self) -> str:
        kind = "" if self.kind == "node" else f"+{self.kind}"
        return f"{self.scheme}{kind}://{','.join(map(_text, self.hosts))}{self.path}"

    def __repr__(self) -> str:
        return str(self)

    @property
    def node_urls(self) -> list[str]:
        """The URL of each node, for redis-py."""
        query = f"?{self.query}" if self.query else ""
        return [
            f"{self.scheme}://{self.login}{_text(host)}{self.path}{query}"
            for host in self.hosts or [("", None)]
        ]

    @property
    def credentials(self) -> dict[str, str]:
        """User and password as arguments of redis-py."""
        user, colon, password = self.login.removesuffix("@").partition(":")
        found = {"username": unquote(user), "password": unquote(password) if colon else ""}
        return {name: text for name, text in found.items() if text}

    @property
    def sentinel_options(self) -> dict[str, Any]:
        """User, password and TLS of the Sentinels as arguments of redis-py."""
        own = {name.removeprefix("sentinel_"): text for name, text in parse_qsl(self.query)}
        return {**own, **({"ssl": True} if self.scheme == "rediss" else {})}

    @property
    def service(self) -> tuple[str, int]:
        """The name of the Sentinels' service, and the database."""
        name, _, database = self.path.strip("/").partition("/")
        return name, int(database or 0)


def address_of(url: str) -> Address:
    """Parse a URL.

    Raises:
        ConnectError: the URL is malformed. The error shows no part of it, since any part may belong to the
            password.
    """
    parts = _URL.fullmatch(url)
    try:
        address = None if parts is None else _address(**parts.groupdict(default=""))
    except ValueError:
        address = None
    if address is None:
        raise ConnectError(_MALFORMED)
    return address


def _address(scheme: str, kind: str, login: str, hosts: str, path: str, query: str) -> Address | None:
    found = tuple(map(_host, hosts.split(","))) if hosts else ()
    kind = kind or ("cluster" if len(found) > 1 else "node")
    address = Address(scheme, kind, login, found, path, query)
    if kind == "sentinel" and (not address.service[0] or address.sentinel_options.keys() - _SENTINEL):
        return None
    return address if found or (scheme == "unix" and kind == "node") else None


def _host(text: str) -> tuple[str, int | None]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(text)
    return parts.hostname, parts.port


def _text(host: tuple[str, int | None]) -> str:
    name = f"[{host[0]}]" if ":" in host[0] else host[0]
    return name if host[1] is None else f"{name}:{host[1]}"


def shown(url: str) -> str:
    """The URL without user, password and options.

    Raises:
        ConnectError: the URL is malformed.
    """
    return str(address_of(url))
