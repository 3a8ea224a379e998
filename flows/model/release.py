"""The release of audiopixel that runs."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

VERSION: Final = version("audiopixel")
"""Looked up once a process: it reads a file of the installation."""
