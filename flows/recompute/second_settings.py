"""Derives the settings of the second flow: the environment's, but for what two flows must not share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from connectors.redis import connect, read_rows
from flows.errors import StateError, UsageError
from flows.model.redis_keys import recomputation_namespace
from flows.publish import latest_fence_record, positions_key
from flows.settings import OUTPUT_TOPICS, Settings, load
from flows.shown import shown

NAME: Final = re.compile("[a-z0-9][a-z0-9-]{0,31}")
_ARCHIVE: Final = "archive:"


def checked(name: str) -> str:
    """A name, which is valid for a recomputation.

    Raises:
        UsageError: the name is not valid.
    """
    if NAME.fullmatch(name) is None:
        raise UsageError(
            f"{shown(name)!r} is no name of a recomputation: it has up to 32 of a to z, 0 to 9 and -"
        )
    return name


def begins_anew(settings: Settings) -> None:
    """Refuse an empty recovery directory if Redis has rows of another flow under the same name.

    Raises:
        StateError: Redis has such rows, of another recomputation or of the flow that one has replaced.
        ConnectError: Redis does not answer.
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
    """The settings of a recomputation, and the derived ones among them as text.

    Args:
        archive: `archive:DIR` or `archive:URL`.
        name: the recomputation's name.
        metrics_port: 0 opens no port.

    Raises:
        UsageError: the archive or the name is not valid.
        SettingsError: a setting is wrong.
    """
    if not archive.startswith(_ARCHIVE):
        raise UsageError("--from takes archive:DIR or archive:s3://BUCKET/PREFIX")
    live = load()
    if live.recovery_dir is None:
        raise UsageError(
            "AUDIOPIXEL_RECOVERY_DIR is not set: set it; the recomputation makes a directory next to it"
        )
    values: dict[str, Any] = {
        "kafka_start": archive,
        "rows_namespace": recomputation_namespace(live.namespace, checked(name)),
        "kafka_group": f"{live.kafka_group}-{name}",
        "recovery_dir": Path(f"{live.recovery_dir}-{name}"),
        "metrics_port": metrics_port,
        **{topic: f"{getattr(live, topic)}-{name}" for topic in OUTPUT_TOPICS},
    }
    return load(**values), {setting: str(value) for setting, value in values.items()}
