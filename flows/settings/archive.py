"""The settings of the archive, a part of `flows.settings.Settings`."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, Field


class ArchiveSettings(BaseModel):
    """The settings of `audiopixel archive`."""

    archive_interval: timedelta = Field(
        timedelta(minutes=5),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=15),
        description="longest time from the first message of a segment of the archive until it is written",
    )
    archive_bytes: int = Field(
        16 << 20,
        ge=1 << 16,
        le=256 << 20,
        description="size of messages, in bytes, at which a segment of the archive is closed",
    )
    archive_forget_interval: timedelta = Field(
        timedelta(hours=6),
        ge=timedelta(0),
        le=timedelta(hours=12),
        description="least time between two passes that remove forgotten people from the archive",
    )
    archive_port: int = Field(
        9472, ge=0, le=65535, description="port of the archive's /metrics; `0` opens none"
    )
