"""The file of settings."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Final

from flows.errors import SettingsError

PREFIX: Final = "AUDIOPIXEL_"


def settings_file() -> Path | None:
    """The file that is named, or the one that is there."""
    name = os.environ.get(f"{PREFIX}CONFIG")
    return Path(name) if name else Path("audiopixel.toml") if Path("audiopixel.toml").exists() else None


def file_values() -> dict[str, Any]:
    """The values of the file; none without one.

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


def values_in_force() -> dict[str, Any]:
    """The values of the file that the environment does not replace. Pydantic would merge tables of both, so
    that a key or a token of the file stayed in force.

    Raises:
        SettingsError: the file cannot be read.
    """
    told = {name.upper() for name in os.environ}
    return {name: value for name, value in file_values().items() if f"{PREFIX}{name}".upper() not in told}
