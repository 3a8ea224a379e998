"""The settings of the second flow: those of its environment, but for what two flows must not share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from connectors.redis import connect, read_rows
from flows.errors import StateError, UsageError
from flows.model.redis_keys import beside
from flows.publish import latest_fence_record, positions_key
from flows.settings import OUTPUT_TOPICS, Settings, load
from flows.shown import shown

NAME: Final = re.compile("[a-z0-9][a-z0-9-]{0,31}")
_ARCHIVE: Final = "archive:"


def checked(name: str) -> str:
    """The name of a recomputation.

    Raises:
        UsageError: it is none.
    """
    if NAME.fullmatch(name) is None:
        raise UsageError(f"{shown(name)!r} is no name: up to 32 letters a to z, digits and -")
    return name


def begins_anew(settings: Settings) -> None:
    """Refuse to begin under a name whose rows another recomputation, or the flow that it replaced, has left.

    Raises:
        StateError: there are some. ConnectError: Redis does not serve.
    """
    if latest_fence_record(settings.recovery_dir).fence:
        return
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    (position_fields,) = read_rows(client, [positions_key(settings.rows_at)])
    client.close()
    if position_fields:
        raise StateError(
            f"{settings.recovery_dir} is empty, and {settings.rows_at} has the rows of another flow: restore "
            "the directory, or take another name"
        )


def derived(archive: str, name: str, metrics_port: int) -> tuple[Settings, dict[str, str]]:
    """The settings of a recomputation, and those of them that are derived, as text.

    Args:
        archive: `archive:DIR` or `archive:URL`.
        name: of the recomputation.
        metrics_port: 0: none is opened.

    Raises:
        UsageError: no archive, or no name. SettingsError: a setting is wrong.
    """
    if not archive.startswith(_ARCHIVE):
        raise UsageError("--from takes archive:DIR or archive:s3://BUCKET/PREFIX")
    live = load()
    if live.recovery_dir is None:
        raise UsageError(
            "AUDIOPIXEL_RECOVERY_DIR is not set: a recomputation has a directory of its own beside it"
        )
    values: dict[str, Any] = {
        "kafka_start": archive,
        "rows_namespace": beside(live.namespace, checked(name)),
        "kafka_group": f"{live.kafka_group}-{name}",
        "recovery_dir": Path(f"{live.recovery_dir}-{name}"),
        "metrics_port": metrics_port,
        **{topic: f"{getattr(live, topic)}-{name}" for topic in OUTPUT_TOPICS},
    }
    return load(**values), {of: str(value) for of, value in values.items()}
