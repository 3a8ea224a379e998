"""Loads the settings from arguments, environment, file and defaults, and words their errors."""

from __future__ import annotations

import os
from typing import Any, Final, get_origin

from pydantic import ValidationError
from pydantic_settings import SettingsError as UnreadableError

from flows.errors import SettingsError
from flows.settings.fields import INTERNAL, SETTABLE, Settings
from flows.settings.file import PREFIX, file_values, place, settings_file
from flows.settings.wording import LIST, TABLE, in_our_words, nearest

LISTED: Final = "without it `audiopixel config --all` lists all"
_OF_FIELDS: Final = ("extra_forbidden", "missing")
"""Pydantic's kinds of errors about a field within a setting. They have the field's name in the location."""
DEFAULT: Final = "the default"
"""The source of an unset setting."""


def load(**values: Any) -> Settings:
    """The settings in force. `values` win over the environment and the file.

    Raises:
        SettingsError: settings are wrong. The error names each with its source, without its value.
    """
    known_names = {f"{PREFIX}{name}".upper() for name in SETTABLE} | {f"{PREFIX}CONFIG"}
    ours = [name for name in os.environ if name.upper().startswith(PREFIX)]
    unknown = sorted(name for name in ours if name.upper() not in known_names)
    if unknown:
        names = [name.upper() for name in SETTABLE]
        suggestions = (name + nearest(name.upper().removeprefix(PREFIX), names, PREFIX) for name in unknown)
        raise SettingsError(f"no such setting: {', '.join(suggestions)}; {LISTED}")
    internal = [name for name in file_values() if name in INTERNAL]
    if internal:
        raise SettingsError(f"{place(internal[0])}: {internal[0]}: no such setting; {LISTED}")
    try:
        return Settings(**values)
    except UnreadableError as error:
        # Pydantic's text names the setting, and does not quote its value.
        name = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), "")
        listed = get_origin(Settings.model_fields[name].annotation) is tuple
        fault = LIST if listed else TABLE
        raise SettingsError(f"{_set_by(name, values)}: {fault}") from None
    except ValidationError as error:
        lines: list[str] = []
        unlisted = False
        for problem in error.errors(include_input=False, include_url=False):
            name, *within = map(str, problem["loc"] or [""])
            fault = in_our_words(problem)
            if name in Settings.model_fields and get_origin(Settings.model_fields[name].annotation) is dict:
                fault = ": ".join([*(within if problem["type"] in _OF_FIELDS else within[:1]), fault])
            if problem["type"] == "extra_forbidden" and not within:
                fault, unlisted = f"no such setting{nearest(name, SETTABLE)}", True
            lines.append(f"{_set_by(name, values)}: {fault}" if name else fault)
        raise SettingsError("; ".join([*lines, *[LISTED] * unlisted])) from None


def _set_by(name: str, values: dict[str, Any]) -> str:
    """The setting as its source spells it: a line of the file, a variable or an argument."""
    origin = source(name, values)
    in_file = origin == str(settings_file())
    return f"{place(name)}: {name}" if in_file else f"{PREFIX}{name.upper()} (from {origin})"


def source(name: str, values: dict[str, Any] | None = None) -> str:
    """The source of a setting's value: an argument, the environment, the file, or the default."""
    if values and name in values:
        return "an argument"
    if f"{PREFIX}{name}".upper() in map(str.upper, os.environ):
        return "the environment"
    if name in file_values():
        return str(settings_file())
    return DEFAULT
