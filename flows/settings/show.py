"""`audiopixel config`: shows the settings in force, in the form in which they can be set."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple, TextIO

from pydantic import BaseModel, SecretStr
from rich.table import Table

from connectors.redis import shown as without_secrets
from connectors.stream import ConnectError
from flows.errors import UsageError
from flows.settings.attribution import AttributionSettings
from flows.settings.collect import CollectSettings
from flows.settings.exports import ExportSettings
from flows.settings.fields import PREFIX, SETTABLE, Settings
from flows.settings.loading import DEFAULT, source
from flows.settings.read import ReadSettings
from flows.settings.takes import takes
from flows.settings.wording import iso, nearest
from flows.shown import LINE, cell, is_terminal, print_table

_NAMES: Final = [name.upper() for name in SETTABLE]
_PARTS: Final = sorted({part for name in _NAMES for part in name.split("_")}, key=len)
NEEDED: Final = ("kafka_brokers", "redis_url", "listener_key")
"""The settings that every installation sets."""
TUNING: Final = (
    *("redis_timeout", "row_cap", "row_memory", "minutes_interval", "delivery_gap", "silent_history"),
    *("max_state", "mature_after", "save_interval", "batch_messages", "reject_share", "reject_least"),
    *("half_life", "touch_listens", "touch_clicks", "household_listeners", "decisions_ttl"),
    *("read_session", "export_connections", "export_timeout", "export_give_up"),
    *("export_ga4_url", "export_adcp_operation", "collect_calls_per_caller", "collect_drain"),
    *("collect_figures", "collect_spool_bytes"),
)
"""The settings whose default fits nearly every installation. They are the last group."""
_GROUPS: Final = (
    ("Attribution", AttributionSettings),
    ("Collector", CollectSettings),
    ("Exports", ExportSettings),
    ("Readers", ReadSettings),
)
_BY_PREFIX: Final = {
    **dict.fromkeys(("kafka",), "Kafka"),
    **dict.fromkeys(("redis", "row", "unplanned", "namespace", "flush", "app"), "Redis and its rows"),
    **dict.fromkeys(("plans", "under", "over", "delivery", "silent", "labels"), "Plans and delivery"),
    **dict.fromkeys(("sources",), "Sources"),
    **dict.fromkeys(("archive",), "Archive"),
    **dict.fromkeys(("out", "allowed", "horizon", "conversion", "quiet", "max", "timezone"), "Time"),
}
_FLOW, _TUNING = "Flow", "Tuning: the default fits nearly everybody"


class Group(NamedTuple):
    """Settings that belong together, by a heading."""

    heading: str
    names: tuple[str, ...]


def groups() -> list[Group]:
    """All settings, each in one group: first the needed ones, then by subject."""
    by_heading: dict[str, list[str]] = {heading: [] for heading in ("Needed", *_BY_PREFIX.values(), _FLOW)}
    by_heading |= {heading: [] for heading in (*(heading for heading, _ in _GROUPS), _TUNING)}
    for name in SETTABLE:
        by_heading.setdefault(_heading(name), []).append(name)
    return [Group(heading, tuple(names)) for heading, names in by_heading.items()]


def _heading(name: str) -> str:
    if name in NEEDED:
        return "Needed"
    if name in TUNING:
        return _TUNING
    if (heading := _BY_PREFIX.get(name.partition("_")[0])) is not None:
        return heading
    for heading, part in _GROUPS:
        if name in part.model_fields:
            return heading
    return _FLOW


def show(settings: Settings, sources: Mapping[str, str], wanted: str = "", every: bool = False) -> None:
    """Print settings by group. In a pipe each setting is one line.

    Args:
        sources: the sources of settings that come from neither the environment nor the file.
        wanted: a part of the names, in any case. If it is empty, the needed settings are shown, and those
            that differ from the default.
        every: whether to print all settings.

    Raises:
        UsageError: no name has `wanted` in it.
    """
    chosen = [name for name in SETTABLE if every or _chosen(name, settings, sources, wanted)]
    if wanted and not chosen:
        near = nearest(wanted.upper(), _NAMES) or nearest(wanted.upper(), _PARTS)
        raise UsageError(f"no setting has {cell(wanted, LINE)} in its name{near}")
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    for column in ("value", "from", "takes", "meaning"):
        table.add_column(column, overflow="fold")
    for group in groups():
        of_group = [name for name in group.names if name in chosen]
        if of_group and is_terminal(sys.stdout):  # in a pipe each line is a setting
            table.add_row(f"[bold]{group.heading}[/bold]", end_section=True)
        for name in of_group:
            field = Settings.model_fields[name]
            value, origin = written(name, getattr(settings, name)), sources.get(name) or source(name)
            texts = (f"{PREFIX}{name.upper()}", value, origin, takes(field), field.description or "")
            table.add_row(*(cell(text, LINE) for text in texts))
    print_table(table)
    if not every and not wanted:
        hidden = len(SETTABLE) - len(chosen)
        print(
            f"\n{hidden} more settings have their default: audiopixel config --all, or "
            "audiopixel config KAFKA"
        )


def example(out: TextIO) -> None:
    """Write a file of settings in which each has its default, commented out."""
    for heading, names in groups():
        out.write(f"# {heading}\n\n")
        for name in names:
            field = Settings.model_fields[name]
            value = _toml(written(name, field.get_default(call_default_factory=True)))
            out.write(f"# {field.description}; {takes(field)}\n# {name} = {value}\n\n")


def _toml(value: str) -> str:
    """A default as TOML: a number, truth value or list as it is, any other value as text."""
    if value == "–":
        return "…"
    plain = re.fullmatch(r"-?\d+(\.\d+)?|\[.*\]", value) is not None or value in ("True", "False")
    return value.lower() if value in ("True", "False") else value if plain else json.dumps(value)


def _chosen(name: str, settings: Settings, sources: Mapping[str, str], wanted: str) -> bool:
    if wanted:
        return wanted.upper().removeprefix(PREFIX) in name.upper()
    return name in NEEDED or name in sources or source(name) != DEFAULT


def written(name: str, value: Any) -> str:
    """A value in the form in which it is set. Only the presence of a secret is shown, and only the target of
    a URL.
    """
    if value is None or value == {} or value == ():
        return "–"
    if isinstance(value, timedelta):
        return iso(value)
    if isinstance(value, dict):
        secret = any(isinstance(one, SecretStr) for one in value.values())
        return ", ".join(f"{option}=…" for option in value) if secret else json.dumps(value, default=_plain)
    if isinstance(value, tuple):
        secret = any(isinstance(one, SecretStr) for one in value)
        return ", ".join("…" for _ in value) if secret else json.dumps(value)
    if not isinstance(value, SecretStr):
        return str(value)
    return _url(value.get_secret_value()) if name.endswith("_url") else "(set, not shown)"


def _plain(value: object) -> object:
    """Convert a value of a type that JSON does not have."""
    return value.model_dump() if isinstance(value, BaseModel) else str(value)


def _url(url: str) -> str:
    try:
        return without_secrets(url)
    except ConnectError:
        return "(malformed, not shown)"
