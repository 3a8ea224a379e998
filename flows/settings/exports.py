"""The settings of the exports, a part of `flows.settings.Settings`."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, Field


class ExportSettings(BaseModel):
    """The settings of `audiopixel export`."""

    export_port: int = Field(9470, ge=0, le=65535, description="port of an export's /metrics; `0` opens none")
    export_give_up: timedelta = Field(
        timedelta(hours=72),
        ge=timedelta(0),
        description="age of a message from which one that its target does not take is a dead letter",
    )
