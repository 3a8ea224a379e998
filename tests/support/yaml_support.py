"""YAML by libyaml, where PyYAML has it: each process that collects the tests reads the rules and stories."""

from __future__ import annotations

from typing import Any, Final

import yaml

LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str) -> Any:
    """The document of a text."""
    return yaml.load(text, Loader=LOADER)


def read_all_yaml(text: str) -> list[Any]:
    """The documents of a text."""
    return list(yaml.load_all(text, Loader=LOADER))
