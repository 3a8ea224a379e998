"""The settings of attribution, a part of `flows.settings.Settings`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from flows.model.basis import Basis
from flows.model.plan import From
from flows.settings.wording import Takes

TopicName = Annotated[str, Takes("name of a topic")]


class AttributionSettings(BaseModel):
    """The settings of attribution: the model of credit, its windows, and how long decisions are stored."""

    attribution: Literal["last_touch", "first_touch", "linear", "time_decay", "off"] = Field(
        "last_touch",
        description="model of credit for conversions; `off` stores no touches and no frequency, and credits "
        "declared and utm conversions alone",
    )
    click_window: timedelta = Field(
        timedelta(days=30),
        ge=timedelta(days=1),
        le=timedelta(days=60),
        description="how long a click may be credited",
    )
    listen_window: timedelta = Field(
        timedelta(days=14),
        ge=timedelta(days=1),
        le=timedelta(days=60),
        description="how long a listen may be credited",
    )
    half_life: timedelta = Field(
        timedelta(days=7),
        ge=timedelta(seconds=1),
        description="time in which a touch's weight halves in time_decay",
    )
    touch_listens: int = Field(
        64, ge=1, description="a listener's newest listens of a campaign that may be credited"
    )
    touch_clicks: int = Field(
        16, ge=1, description="a listener's newest clicks of a campaign that may be credited"
    )
    touch_listens_in_all: int = Field(
        1000, ge=1, description="a listener's newest listens of all campaigns that may be credited"
    )
    touch_clicks_in_all: int = Field(
        250, ge=1, description="a listener's newest clicks of all campaigns that may be credited"
    )
    conversions_from: From = Field(
        "browser",
        description="whose conversions count: with `browser` the first of an order, whether a public tag or "
        "a token has sent it; with `server` those of tokens alone. A campaign's plans win over this",
    )
    household_listeners: int = Field(
        20,
        ge=1,
        le=250,
        description="distinct listeners within the listen window beyond which a household joins nobody",
    )
    utm_placements: dict[str, str] = Field(
        default_factory=dict, description="utm_content to the placement that it stands for"
    )
    platform_basis: dict[str, Basis] = Field(
        default_factory=dict,
        description="basis of the impressions of a platform whose pixels have none; else vast_impression",
    )
    decisions_ttl: timedelta = Field(
        timedelta(days=7),
        ge=timedelta(minutes=1),
        description="how long the decision on a conversion can be explained",
    )
    kafka_credits_topic: TopicName = Field(
        "conversion-credits", description="topic of the decisions on conversions, compactable"
    )
