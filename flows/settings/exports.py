"""The settings of the exports, a part of `flows.settings.Settings`."""

from __future__ import annotations

import base64
import binascii
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr, field_validator

from flows.settings.wording import Takes


def _address(address: SecretStr | None) -> SecretStr | None:
    if address is not None and not address.get_secret_value().startswith(("https://", "http://")):
        raise ValueError("takes https://HOST/PATH or http://HOST/PATH")
    return address


Address = Annotated[SecretStr | None, AfterValidator(_address), Takes("https:// or http:// URL, or unset")]


def secret_bytes(secret: str) -> bytes:
    """The bytes of a secret: for `whsec_…` the decoded base64.

    Raises:
        ValueError: the secret has not 24 to 64 bytes, or is no base64.
    """
    try:
        encoded = secret.removeprefix("whsec_")
        secret_key = base64.b64decode(encoded, validate=True) if encoded != secret else secret.encode()
    except binascii.Error:
        raise ValueError("takes base64 after whsec_") from None
    if not 24 <= len(secret_key) <= 64:
        raise ValueError("takes secrets of 24 to 64 bytes")
    return secret_key


class ExportSettings(BaseModel):
    """The settings of `audiopixel export`."""

    export_port: int = Field(9470, ge=0, le=65535, description="port of an export's /metrics; `0` opens none")
    export_give_up: timedelta = Field(
        timedelta(hours=72),
        ge=timedelta(0),
        description="age at which a message that its target does not take becomes a dead letter",
    )
    export_timeout: timedelta = Field(
        timedelta(seconds=10),
        gt=timedelta(0),
        le=timedelta(minutes=2),
        description="longest time of one call to a target, from its connection to the end of the answer",
    )
    export_webhook: Address = Field(
        None, description="address that webhooks go to; not shown, since it may be secret"
    )
    export_webhook_secrets: tuple[SecretStr, ...] = Field(
        (),
        description="secrets that sign each webhook, as whsec_ and base64 or as text; several while one "
        "is being changed",
    )
    export_connections: int = Field(
        8, ge=1, le=64, description="calls that are under way at a time, to ga4 and adobe"
    )
    export_state: Path = Field(
        Path("exports"),
        description="directory where ga4 and adobe store the listeners of undecided conversions",
    )
    export_ga4_url: str = Field(
        "https://www.google-analytics.com/mp/collect",
        description="address of Google's Measurement Protocol; its /debug/mp/collect validates, and counts "
        "nothing",
    )
    export_ga4_measurement_id: str | None = Field(
        None, description="id of the data stream that ga4 sends to, such as G-12345"
    )
    export_ga4_secret: SecretStr | None = Field(
        None, description="that stream's API secret of the Measurement Protocol"
    )
    export_adobe_url: str | None = Field(
        None,
        description="address of Adobe's Data Insertion, such as https://example.data.adobedc.net/b/ss//6",
    )
    export_adobe_suite: str | None = Field(
        None, description="id of the report suite that adobe sends to; it must take timestamps"
    )
    export_adcp: Address = Field(
        None, description="address of a buyer's agent that AdCP's delivery reports go to; not shown"
    )
    export_adcp_every: timedelta = Field(
        timedelta(hours=1),
        ge=timedelta(minutes=1),
        le=timedelta(days=1),
        description="time between two delivery reports of a media buy",
    )
    export_adcp_operation: str = Field(
        "audiopixel-delivery",
        min_length=1,
        max_length=255,
        description="operation_id in every delivery report, as the buyer's agent requires it",
    )
    export_slack: Address = Field(None, description="Slack's address of an incoming webhook, which is secret")

    @field_validator("export_webhook_secrets")
    @classmethod
    def _export_secrets(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in secrets:
            secret_bytes(secret.get_secret_value())
        return secrets
