"""The running release of audiopixel."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

VERSION: Final = version("audiopixel")
"""The version, looked up once in a process, since the look-up reads a file of the installation."""
