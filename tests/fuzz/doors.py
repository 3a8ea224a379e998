"""All doors by name."""

from __future__ import annotations

from typing import Final

from fuzz.client import ClientDoor
from fuzz.collector import BodyDoor, GetDoor, HeadersDoor
from fuzz.exporter import ExporterDoor, ShownDoor
from fuzz.exports import ExportsDoor
from fuzz.files import ClaimsDoor, LettersDoor, LogFilesDoor, PeopleDoor, PlansDoor, SavesDoor
from fuzz.flow import LogDoor, MessagesDoor, conversions_door, marks_door
from fuzz.run import Opened
from fuzz.sources import SourceDoor
from fuzz.strangers import StrangersDoor

DOORS: Final[dict[str, Opened]] = {
    "collector-get": GetDoor,
    "collector-body": BodyDoor,
    "collector-headers": HeadersDoor,
    "strangers": StrangersDoor,
    "source": SourceDoor,
    "pixels": MessagesDoor,
    "conversions": conversions_door,
    "marks": marks_door,
    "log": LogDoor,
    "log-files": LogFilesDoor,
    "plans": PlansDoor,
    "claims": ClaimsDoor,
    "letters": LettersDoor,
    "saves": SavesDoor,
    "people": PeopleDoor,
    "exports": ExportsDoor,
    "exporter": ExporterDoor,
    "shown": ShownDoor,
    "client": ClientDoor,
}
