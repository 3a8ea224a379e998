"""The file of settings."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from flows.errors import SettingsError

PREFIX: Final = "AUDIOPIXEL_"


def settings_file() -> Path | None:
    """The named file, or the one that exists."""
    name = os.environ.get(f"{PREFIX}CONFIG")
    return Path(name) if name else Path("audiopixel.toml") if Path("audiopixel.toml").exists() else None


def file_values() -> dict[str, Any]:
    """The values of the file; empty without one.

    Raises:
        SettingsError: it cannot be read.
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
    """The file and the line at which it sets a name: `audiopixel.toml:3`. An unknown line is left out."""
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
    """False within a text of several lines, and for a key within a table."""
    try:
        tomllib.loads("\n".join(before))
    except tomllib.TOMLDecodeError:
        return False
    return header or not any(line.lstrip().startswith("[") for line in before)


def values_in_force() -> dict[str, Any]:
    """The values of the file that the environment does not replace. Pydantic would merge tables of both, so
    that a key or a token of the file stayed in force.

    Raises:
        SettingsError: the file cannot be read.
    """
    environment = {name.upper() for name in os.environ}
    return {
        name: value for name, value in file_values().items() if f"{PREFIX}{name}".upper() not in environment
    }
