"""Reads the file of settings, `audiopixel.toml`."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from flows.errors import SettingsError

PREFIX: Final = "AUDIOPIXEL_"


def settings_file() -> Path | None:
    """The file that `AUDIOPIXEL_CONFIG` names, else `audiopixel.toml` here; None if there is none."""
    name = os.environ.get(f"{PREFIX}CONFIG")
    return Path(name) if name else Path("audiopixel.toml") if Path("audiopixel.toml").exists() else None


def file_values() -> dict[str, Any]:
    """The values of the file; empty if there is no file.

    Raises:
        SettingsError: the file cannot be read.
    """
    path = settings_file()
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(
            f"{path}: {error.strerror}: create the file, or correct {PREFIX}CONFIG, which names it"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read as TOML: {error}") from None


def place(name: str) -> str:
    """The file and the line that sets a name: `audiopixel.toml:3`; the file alone if no line is found."""
    path = settings_file()
    if path is None:
        return ""
    lines = path.read_text().splitlines()
    quoted = f"[\"']?{re.escape(name)}[\"']?"
    header, key = re.compile(rf"\s*\[+\s*{quoted}\s*[\].]"), re.compile(rf"\s*{quoted}\s*[.=]")
    for number, line in enumerate(lines):
        table = header.match(line) is not None
        if (table or key.match(line)) and _at_top(lines[:number], table):
            return f"{path}:{number + 1}"
    return str(path)


def _at_top(before: list[str], header: bool) -> bool:
    """True if the line after `before` is no part of a text of several lines, and no key within a table."""
    try:
        tomllib.loads("\n".join(before))
    except tomllib.TOMLDecodeError:
        return False
    return header or not any(line.lstrip().startswith("[") for line in before)


def values_in_force() -> dict[str, Any]:
    """The values of the file that the environment does not replace. Pydantic would merge the tables of both,
    and a key or a token of the file would stay in force.

    Raises:
        SettingsError: the file cannot be read.
    """
    environment = {name.upper() for name in os.environ}
    return {
        name: value for name, value in file_values().items() if f"{PREFIX}{name}".upper() not in environment
    }
