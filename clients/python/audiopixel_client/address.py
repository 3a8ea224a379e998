"""Connections by address: one primary node, or the primary that Sentinels name."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from redis import Redis, ResponseError
from redis.exceptions import MovedError
from redis.sentinel import Sentinel, SentinelConnectionPool

SENTINELS = ("redis+sentinel", "rediss+sentinel")
SENTINEL_PORT = 26379
NO_CLUSTER = (
    "this client does not read a Redis Cluster: let the flow write to a single node or to one behind "
    "Sentinels, or read the cluster without this client (docs/bidders.md)"
)


def connect(url: str, **options: Any) -> Any:
    """A client of Redis. With Sentinels each new connection leads to the primary that they name then.

    Args:
        url: `redis://[user:password@]host[:port][/db]`, or
            `redis+sentinel://[user:password@]host[:port],host[:port]/service[/db]`. The login is the nodes'.
            `rediss` instead of `redis` is TLS, with nodes and Sentinels.
        options: of `redis.Redis`.

    Raises:
        ValueError: the address is malformed, or a Redis Cluster's.
    """
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    if parts.scheme not in SENTINELS:
        if "," in hosts or parts.scheme.endswith("+cluster"):
            raise ValueError(NO_CLUSTER)
        return Redis.from_url(url, **options)
    service, _, db = parts.path.strip("/").partition("/")
    if not hosts or not service or not (db or "0").isdecimal():
        raise ValueError(f"an address of Sentinels is {parts.scheme}://host:{SENTINEL_PORT},…/service[/db]")
    user, _, password = login.partition(":")
    tls: dict[str, Any] = {"ssl": True} if parts.scheme == "rediss+sentinel" else {}
    nodes: dict[str, Any] = {"username": unquote(user) or None, "password": unquote(password) or None}
    sentinels = Sentinel([_host(text) for text in hosts.split(",")], sentinel_kwargs={**options, **tls})
    return sentinels.master_for(unquote(service), **options, **tls, **nodes, db=int(db or 0))


def _host(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "", parts.port or SENTINEL_PORT


def has_moved(redis: Any, connection: Any) -> bool:
    """Whether Sentinels name another primary than the one that a connection leads to."""
    sentinels = isinstance(redis.connection_pool, SentinelConnectionPool)
    return sentinels and tuple(redis.connection_pool.get_master_address()) != (
        connection.host,
        connection.port,
    )


def in_words(error: Exception) -> Exception:
    """An error of Redis, in words where its own are none: a node of a cluster, or a Sentinel, answered."""
    if isinstance(error, MovedError):
        return ConnectionError(NO_CLUSTER)
    if isinstance(error, ResponseError) and str(error).startswith("unknown command 'TIME'"):
        return ConnectionError("a Sentinel answers here: its address is redis+sentinel://host:port/service")
    return error
