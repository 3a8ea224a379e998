"""`audiopixel config`: what is in force, in the form in which it can be set again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, SecretStr
from rich.table import Table

from connectors.redis import shown as without_secrets
from connectors.stream import ConnectError
from flows.settings.fields import PREFIX, Settings
from flows.settings.loading import source
from flows.settings.takes import takes
from flows.settings.wording import iso
from flows.shown import LINE, cell, print_table


def show(settings: Settings, kept: Mapping[str, str]) -> None:
    """Print every setting; one line each where no terminal has to fit it. `kept` says where those come from
    that neither the environment nor the file has.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    for name in ("value", "from", "takes", "meaning"):
        table.add_column(name, overflow="fold")
    for name, field in Settings.model_fields.items():
        value, of = written(name, getattr(settings, name)), kept.get(name) or source(name)
        told = (f"{PREFIX}{name.upper()}", value, of, takes(field), field.description or "")
        table.add_row(*(cell(text, LINE) for text in told))
    print_table(table)


def written(name: str, value: Any) -> str:
    """A setting as one would write it; of a secret only that it is set, of a URL only where it leads."""
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
    """Convert a setting's own types, which JSON does not know."""
    return value.model_dump() if isinstance(value, BaseModel) else str(value)


def _url(url: str) -> str:
    try:
        return without_secrets(url)
    except ConnectError:
        return "(malformed, not shown)"
