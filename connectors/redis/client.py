"""The way to a Redis or Valkey, single node or cluster: connecting, pipelines, errors with a remedy.

Callers import `connectors.redis`. This module does not depend on rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypeVar, cast

from hiredis import pack_command
from redis import Redis, RedisCluster
from redis import exceptions as errors
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from connectors.redis.address import SENTINEL_PORT, Address, address_of
from connectors.stream import ConnectError

CHUNK: Final = 500
"""The number of rows of one pipeline: one round trip, about 0.3 MB of requests at 100 fields a row."""


_T = TypeVar("_T")


def chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


Client: TypeAlias = Redis | RedisCluster

Command: TypeAlias = tuple[str, tuple[Any, ...]]
"""The key that selects the node, and the command itself."""

# Errors that pass by themselves or after a repetition; subclasses come before their base.
_REASON_BY_CLASS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (errors.AuthenticationError, "auth"),
    (errors.BusyLoadingError, "loading"),
    (errors.ReadOnlyError, "readonly"),
    (errors.OutOfMemoryError, "oom"),
    (errors.NoScriptError, "loading"),  # restarted after the script was loaded
    (errors.MasterDownError, "masterdown"),
    (errors.AskError, "moving"),  # MovedError is one
    (errors.TryAgainError, "moving"),
    (errors.SlotNotCoveredError, "clusterdown"),
    (errors.ClusterError, "clusterdown"),
    (errors.RedisClusterException, "clusterdown"),
    (errors.TimeoutError, "timeout"),
    (errors.ConnectionError, "connection"),
    (errors.InvalidResponse, "connection"),  # another program answers, such as a proxy
)
_REASON_BY_CODE: Final = {"BUSY": "busy", "MISCONF": "misconf", "NOREPLICAS": "noreplicas"}
_FAILURES: Final = (errors.RedisError, errors.RedisClusterException)

_RIGHTS: Final = "docs/production.md lists the rights of each process"
_COMMAND: Final = re.compile("(?:run the|unknown command) ['`]([^'`]+)", re.IGNORECASE)
REASONS: Final = frozenset([reason for _, reason in _REASON_BY_CLASS] + list(_REASON_BY_CODE.values()))
"""All values of `RedisUnavailable.reason`."""


class RedisUnreachable(ConnectError):
    """The Redis at an address does not answer."""


class RedisUnavailable(ConnectError):
    """Redis cannot serve now, and may later: repeat the whole call.

    Attributes:
        reason: one of `REASONS`, fit for a metric's label.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"Redis is unavailable ({reason}): {detail}")
        self.reason = reason


def connect(url: str, *, timeout: timedelta = timedelta(seconds=5)) -> Client:
    """A client of a Redis >= 7 or Valkey >= 8, after a check that it is ready. Detects a cluster.

    Behind Sentinels each new connection leads to the primary that they name at that moment.

    Args:
        url: see `connectors.redis.address`; user and password percent-encoded. A cluster has only db 0.
        timeout: for connecting, and for each reply.

    Raises:
        ConnectError: the server cannot be used; the error has the address (without user and password), the
            reason and the remedy.
    """
    address = address_of(url)
    where = f"Redis at {address}"
    seconds = timeout.total_seconds()
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        # A single attempt: the caller repeats, and a repetition inside redis-py would report `LANDED` as
        # `SAME`.
        "retry": Retry(NoBackoff(), 0),
    }
    try:
        return _of_sentinels(address, options) if address.kind == "sentinel" else _of_nodes(address, options)
    except errors.AuthenticationError as error:
        _refuse_sentinel(address, options)
        raise ConnectError(f"{where} refuses the login ({_text(error)}): check user and password") from None
    except errors.TimeoutError:
        raise ConnectError(f"{where} does not answer within {seconds:g} s: is it overloaded?") from None
    except errors.BusyLoadingError:
        raise ConnectError(f"{where} is not ready: it is loading its data, try again later") from None
    except MasterNotFoundError:
        raise RedisUnreachable(
            f"{where}: no Sentinel names a primary: check service and addresses, and sentinel_password"
        ) from None
    except errors.ConnectionError as error:
        raise RedisUnreachable(f"{where} cannot be reached ({_text(error)}): start it") from None
    except errors.ResponseError as error:
        _refuse_sentinel(address, options)
        raise ConnectError(f"{where} is not ready ({_text(error)}): {_remedy(error)}") from None
    except (*_FAILURES, ValueError, TypeError) as error:
        raise ConnectError(
            f"{where} is not ready ({_text(error)}): check the server and its address"
        ) from None


def _of_sentinels(address: Address, options: Mapping[str, Any]) -> Client:
    name, database = address.service
    sentinels = [(host, port or SENTINEL_PORT) for host, port in address.hosts]
    # Sentinels that do not answer must not take the time of those that do.
    sentinel_options = {**options, **address.sentinel_options}
    found = Sentinel(sentinels, sentinel_kwargs=sentinel_options, **options)
    tls = {name: value for name, value in address.sentinel_options.items() if name.startswith("ssl")}
    own: dict[str, Any] = {**address.credentials, **tls}
    client: Client = found.master_for(name, db=database, **own)
    _check_greeting(client, address)
    return client


def _of_nodes(address: Address, options: Mapping[str, Any]) -> Client:
    urls = address.node_urls
    for url in urls:
        client = Redis.from_url(url, **options)
        try:
            mode = _check_greeting(client, address)
        except (errors.ConnectionError, errors.TimeoutError):
            if url == urls[-1]:
                raise
            continue
        if mode != "cluster" and address.kind == "node":
            return client
        client.close()
        break
    if mode != "cluster":
        raise ConnectError(f"Redis at {address} is no cluster: name the one primary, or its Sentinels")
    options_of_url = parse_url(url)  # type: ignore[no-untyped-call]
    own = {name: value for name, value in options_of_url.items() if name not in ("host", "port", "db")}
    if issubclass(own.pop("connection_class", object), SSLConnection):
        own["ssl"] = True
    seeds = [ClusterNode(host, port or 6379) for host, port in address.hosts]  # type: ignore[no-untyped-call]
    return RedisCluster(startup_nodes=seeds, **{**own, **options})


def _refuse_sentinel(address: Address, options: Mapping[str, Any]) -> None:
    """Raise `ConnectError` if a Sentinel answers: it has no databases, and seldom the nodes' login."""
    if address.kind == "sentinel" or not address.hosts:
        return
    bare = address._replace(login="", path="")
    with suppress(*_FAILURES), Redis.from_url(bare.node_urls[-1], **options) as client:
        _check_greeting(client, bare)


def _check_greeting(client: Client, address: Address) -> str:
    """The mode of a server, `standalone` or `cluster`, by HELLO, which every user may send.

    Raises:
        ConnectError: the server is a Sentinel, or too old.
    """
    answer: Any = client.execute_command("HELLO")  # type: ignore[no-untyped-call]
    pairs = answer if isinstance(answer, Mapping) else dict(zip(answer[::2], answer[1::2], strict=True))
    greeting = {str(name): str(value) for name, value in pairs.items()}
    if greeting["mode"] == "sentinel":
        services = ""
        with suppress(*_FAILURES):
            services = ", ".join(sorted(map(str, client.sentinel_masters())))  # type: ignore[union-attr]
        raise ConnectError(
            f"Redis at {address} is a Sentinel: write redis+sentinel://host:port,host:port/SERVICE; its "
            f"services are {services or 'unknown to this user'}"
        )
    check_version(greeting, f"Redis at {address}")
    return greeting["mode"]


def replies(client: Client, commands: Sequence[Command], *, alike: bool = False) -> list[Any]:
    """The reply to each command, or its error as a value; one round trip a node, no transaction.

    Args:
        alike: the commands differ only in their key, which follows the command's name; the equal parts are
            then packed once.
    """
    if not commands:
        return []
    send = _alike if alike else _pipelined
    if not isinstance(client, RedisCluster):
        return send(client, commands)
    # Not redis-py's cluster pipeline: if a node hangs, it waits one timeout for each command instead of one
    # in all.
    cluster: Any = client
    by_node: dict[Any, list[int]] = {}
    for i, (key, _) in enumerate(commands):
        by_node.setdefault(cluster.get_node_from_key(key), []).append(i)
    answers: list[Any] = [None] * len(commands)
    for node, places in by_node.items():
        here = send(cluster.get_redis_connection(node), [commands[i] for i in places])
        for i, answer in zip(places, here, strict=True):
            answers[i] = _redirected(cluster, commands[i]) if isinstance(answer, errors.AskError) else answer
    return answers


def checked(answers: list[Any]) -> list[Any]:
    """The same answers; raises the first error among them."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


@contextmanager
def failures(client: Client, key: str | None = None) -> Iterator[None]:
    """Convert redis-py's errors into this module's, and drop connections, which may lead to a replaced
    server.

    Args:
        key: the only key of the requests; `replies` names its own keys.

    Raises:
        RedisUnavailable: for temporary errors.
        ConnectError: for permanent ones.
    """
    try:
        yield
    except _FAILURES as error:
        reason = _reason(error)
        if reason is None:
            keys = _refused(client, error, [] if key is None else [key])
            raise ConnectError(f"Redis refuses{keys} ({_text(error)}): {_remedy(error)}") from error
        _reconnect(client)
        raise RedisUnavailable(reason, _text(error)) from error
    except UnicodeDecodeError as error:
        raise ConnectError(
            f"Redis holds text that is not UTF-8 ({error.object[:64]!r}): delete it, no flow wrote it"
        ) from None


def _pipelined(client: Any, commands: Sequence[Command]) -> list[Any]:
    return _exchanged(client, b"".join([pack_command(tuple(command)) for _, command in commands]), commands)


def _alike(client: Any, commands: Sequence[Command]) -> list[Any]:
    name, _, *rest = commands[0][1]
    head, tail = b"*%d\r\n%s" % (2 + len(rest), _bulk(name)), b"".join(map(_bulk, rest))
    return _exchanged(client, b"".join([head + _bulk(key) + tail for key, _ in commands]), commands)


def _exchanged(client: Any, packed: bytes, commands: Sequence[Command]) -> list[Any]:
    # Not with redis-py's pipeline, whose packing costs three times as much.
    with _understood("the greeting"):
        connection = client.connection_pool.get_connection()
    try:
        connection.send_packed_command([packed])
        return [_answer(client, connection, command) for _, command in commands]
    except BaseException:
        connection.disconnect()  # unread answers would be taken for answers to the next command
        raise
    finally:
        client.connection_pool.release(connection)


def _answer(client: Any, connection: Any, command: Sequence[Any]) -> Any:
    name = command[0]
    try:
        return client.parse_response(connection, name)
    except errors.ResponseError as error:
        keys = command[3 : 3 + command[2]] if name.startswith("EVAL") else command[1:2]
        cast(Any, error).keys = keys
        return error
    except Exception:
        with _understood(name):  # around each answer it would cost a third of the time
            raise


@contextmanager
def _understood(name: str) -> Iterator[None]:
    """Turn a reply that redis-py cannot parse into an error: it is no answer to `name`."""
    try:
        yield
    except UnicodeDecodeError:
        raise
    except (TypeError, ValueError, AttributeError):
        raise errors.InvalidResponse(f"no answer to {name}") from None


def _refused(client: Client, error: Exception, keys: Sequence[str]) -> str:
    """The refused keys, for the error's text; of a script's many keys, those that are no hash."""
    keys = getattr(error, "keys", keys)
    if len(keys) > 1 and str(error).startswith("WRONGTYPE"):
        with suppress(*_FAILURES):
            types = replies(client, [(key, ("TYPE", key)) for key in keys])
            keys = [key for key, of in zip(keys, types, strict=True) if of not in ("hash", "none")]
    return "".join(f" {key!r}" for key in keys[:1])


def _bulk(part: Any) -> bytes:
    if part.__class__ is not bytes:
        part = str(part).encode()
    return b"$%d\r\n%s\r\n" % (len(part), part)


def _redirected(cluster: Any, command: Command) -> Any:
    """The answer through the cluster client, which follows MOVED and ASK, and updates its map of slots."""
    try:
        return cluster.execute_command(*command[1])
    except _FAILURES as error:
        return error


def _reason(error: Exception) -> str | None:
    for kind, reason in _REASON_BY_CLASS:
        if isinstance(error, kind):
            return reason
    return _REASON_BY_CODE.get(str(error).partition(" ")[0])


def _reconnect(client: Any) -> None:
    # Only idle connections: another thread may be in the middle of a reply on the others.
    if isinstance(client, RedisCluster):
        for node in client.nodes_manager.nodes_cache.values():
            if node.redis_connection is not None:
                node.redis_connection.connection_pool.disconnect(inuse_connections=False)
        with suppress(*_FAILURES):
            client.nodes_manager.initialize()
    else:
        client.connection_pool.disconnect(inuse_connections=False)


def check_version(greeting: Mapping[str, str], where: str) -> None:
    """Raise `ConnectError` for the answer to HELLO of a Redis before 7 or a Valkey before 8."""
    is_valkey, version = greeting["server"] == "valkey", greeting["version"]
    if int(version.partition(".")[0]) < (8 if is_valkey else 7):
        name = "Valkey" if is_valkey else "Redis"
        raise ConnectError(f"{where} is {name} {version}, which is too old: run Redis >= 7 or Valkey >= 8")


def _text(error: Exception) -> str:
    """The error without a refused command's arguments, which may be a password, and without the Sentinels'
    settings.
    """
    if isinstance(error, MasterNotFoundError):
        return "no Sentinel names a primary"
    if str(error).startswith("HELLO must be called"):
        return "it needs one"
    return str(error).partition(", with args")[0]


def _remedy(error: Exception) -> str:
    if found := _COMMAND.search(str(error)):
        command = found[1].lower()
        return f"give this user the right +{command}, and leave the command its name; {_RIGHTS}"
    if isinstance(error, errors.NoPermissionError):
        return f"give this user the right to the key (~) or channel (&); {_RIGHTS}"
    return f"check the key's type and the user's rights; {_RIGHTS}"
