"""The exports, each declared once; `flows.exports.runners` has the function of each."""

from __future__ import annotations

from typing import Final, NamedTuple


class Export(NamedTuple):
    """A kind of export.

    Attributes:
        name: as the command takes it.
        means: its purpose in words, shown after its name.
        examples: arguments after the name, each with its effect.
        start: the place at which its first start begins to read, `earliest` or `latest`.
        to: whether it takes `--to`, the place to which it writes.
        helped: whether the command's help shows it as an example.
    """

    name: str
    means: str
    examples: tuple[tuple[str, str], ...]
    start: str = "latest"
    to: bool = False
    helped: bool = True


EXPORTS: Final = (
    Export(
        "parquet",
        "writes final minutes and decisions, one folder a UTC day, once the day is complete.",
        (
            ("--to /data/audiopixel", "days of minutes and decisions, for a warehouse"),
            ("--to s3://bucket/audiopixel --once", "the same from a timer, into a bucket"),
        ),
        start="earliest",
        to=True,
    ),
    Export(
        "webhook",
        "calls AUDIOPIXEL_EXPORT_WEBHOOK at each change of a placement's delivery state, and of the "
        "methodology. Calls are signed by AUDIOPIXEL_EXPORT_WEBHOOK_SECRETS, after Standard Webhooks.",
        (("", "changes of delivery states and silent feeds, as signed calls"),),
    ),
    Export(
        "slack",
        "writes the same to Slack, by the incoming webhook AUDIOPIXEL_EXPORT_SLACK.",
        (("", "the same as Slack's messages"),),
    ),
    Export(
        "adcp",
        "sends AUDIOPIXEL_EXPORT_ADCP the delivery of each campaign, as AdCP's delivery webhooks: every "
        "AUDIOPIXEL_EXPORT_ADCP_EVERY, and when a flight is final. Calls are signed as those of webhook.",
        (("", "delivery reports, for a buyer's agent by AdCP"),),
        helped=False,
    ),
    Export(
        "ga4",
        "sends starts, completes and attributed conversions to Google Analytics 4, from consented pixels "
        "with a ga_client_id.",
        (("", "plays and conversions, for Google Analytics 4"),),
    ),
    Export(
        "adobe",
        "sends the same to Adobe Analytics, from all consented pixels.",
        (("", "the same for Adobe Analytics"),),
        helped=False,
    ),
)
NAMES: Final = tuple(export.name for export in EXPORTS)
