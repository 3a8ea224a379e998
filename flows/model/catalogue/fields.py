"""The fields of a pixel and the scopes that it counts in, each declared once."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """The values that a field takes."""

    ID = "id"
    """A text of at most 128 characters."""
    TEXT = "text"
    MOMENT = "moment"
    """Epoch milliseconds, or RFC 3339 with its offset."""
    WHOLE = "whole"
    TRUTH = "truth"
    CATEGORIES = "categories"
    """A text, or a list of texts."""
    OBJECT = "object"


class Field(NamedTuple):
    """A field of a pixel.

    Attributes:
        name: as it stands in a message.
        kind: the kind of its values.
        means: its meaning in a sentence.
        takes: its values in words, if its kind's do not describe them.
        required: every pixel has it.
        in_letters: dead letters keep it, since it identifies no listener.
        scanned: the scanner of plain lines reads it.
        synonyms: usual names in other systems, in small letters, the likeliest first.
    """

    name: str
    kind: Kind
    means: str
    takes: str = ""
    required: bool = False
    in_letters: bool = False
    scanned: bool = True
    synonyms: tuple[str, ...] = ()


class Scope(NamedTuple):
    """A scope: rows of one kind of name.

    Attributes:
        name: its name.
        field: the field of a pixel that has the name of its row.
        listed: a plan may list the names that count.
        signed: a tag's signature may cover the name.
        parameter: the parameter of a tag that has the name; empty if a tag must not have it.
        shown: the live page has a view of the scope.
    """

    name: str
    field: str
    listed: bool = False
    signed: bool = False
    parameter: str = ""
    shown: bool = False


SCOPES: Final = (
    Scope("placement", "placement_id", parameter="pl", shown=True),
    Scope("campaign", "campaign_id", parameter="cm", shown=True),
    Scope("platform", "platform", parameter="pf", listed=True, signed=True),
    Scope("station", "station", parameter="st", listed=True, signed=True),
    Scope("podcast", "podcast", parameter="pc", listed=True, signed=True),
    Scope("program", "program", parameter="pg", listed=True, signed=True),
    Scope("creative", "creative_id", parameter="cr", listed=True, shown=True),
    Scope("app", "app", shown=True),
)
"""Scopes that a plan lists adjoin each other. The last one counts only with `AUDIOPIXEL_APP_ROWS`."""
SCOPE_NAMES: Final = tuple(scope.name for scope in SCOPES)
SCOPE_FIELDS: Final = tuple(scope.field for scope in SCOPES)
LISTED: Final = tuple(scope.name for scope in SCOPES if scope.listed)
LISTED_FIELDS: Final = tuple(scope.field for scope in SCOPES if scope.listed)
SIGNED: Final = tuple(scope.field for scope in SCOPES if scope.signed)
CALLER_FIELDS: Final = tuple(scope.field for scope in SCOPES if scope.parameter)
"""The fields that callers may name."""
UNSIGNED: Final = tuple(scope for scope in SCOPES if scope.parameter and not scope.signed)
UNSIGNED_FIELDS: Final = tuple(scope.field for scope in UNSIGNED)
TAGGED: Final = (*(scope.name for scope in UNSIGNED), *(scope.name for scope in SCOPES if scope.signed))
SHOWN: Final = tuple(scope.name for scope in SCOPES if scope.shown)
LABELS: Final = (SCOPE_FIELDS[1], *SIGNED)
"""The fields of a placement's row by which people find it."""

FIELDS: Final = (
    Field(
        "event_id",
        Kind.ID,
        "Id of this call; a retry of the call repeats it.",
        "takes a text of 1 to 128 characters, and is required",
        required=True,
        in_letters=True,
        synonyms=("event_id", "eventid", "message_id", "messageid", "insert_id", "uuid", "id"),
    ),
    Field(
        "event",
        Kind.TEXT,
        "What happened, in VAST 4.2 spelling.",
        required=True,
        in_letters=True,
        synonyms=("event", "event_name", "eventname", "event_type", "eventtype", "action", "type"),
    ),
    Field(
        "ts",
        Kind.MOMENT,
        "When it happened, by the caller's clock.",
        required=True,
        in_letters=True,
        synonyms=(
            *("ts", "timestamp", "event_time", "event_timestamp", "eventtimestamp", "occurred_at", "time"),
        ),
    ),
    Field("received_at", Kind.MOMENT, "When the collector took it.", in_letters=True),
    Field(
        "placement_id",
        Kind.ID,
        "Where the ad ran; needed but for a conversion.",
        "takes a text of 1 to 128 characters, and is required except on a conversion; an unreplaced macro "
        "such as [ID] counts as missing",
        in_letters=True,
        synonyms=("placement_id", "placementid", "placement", "line_item_id", "line_item", "ad_unit_id"),
    ),
    Field(
        "play_id",
        Kind.ID,
        "The play, VAST ADSERVINGID.",
        in_letters=True,
        synonyms=(
            *("play_id", "playid", "ad_play_id", "impression_id", "impressionid", "imp_id", "impression"),
        ),
    ),
    Field(
        "campaign_id",
        Kind.ID,
        "The campaign.",
        in_letters=True,
        synonyms=("campaign_id", "campaignid", "campaign"),
    ),
    Field(
        "creative_id",
        Kind.ID,
        "The creative.",
        in_letters=True,
        synonyms=("creative_id", "creativeid", "creative", "ad_id", "adid"),
    ),
    Field("app", Kind.ID, "The listening app.", in_letters=True),
    Field(
        "platform",
        Kind.ID,
        "The platform.",
        in_letters=True,
        synonyms=("platform", "ad_server", "publisher"),
    ),
    Field(
        "station",
        Kind.ID,
        "The station.",
        in_letters=True,
        synonyms=("station", "station_id", "station_name"),
    ),
    Field("podcast", Kind.ID, "The podcast.", in_letters=True, synonyms=("podcast", "podcast_id", "show")),
    Field("program", Kind.ID, "The program.", in_letters=True, synonyms=("program", "programme", "series")),
    Field(
        "listener_id",
        Kind.ID,
        "A stable pseudonym of the listener, or a device id.",
        synonyms=(
            *("listener_id", "listenerid", "anonymous_id", "anonymousid", "device_id", "user_id", "userid"),
        ),
    ),
    Field("household_id", Kind.ID, "A stable pseudonym of the listener's address."),
    Field(
        "consent",
        Kind.TRUTH,
        "Whether this listener may be measured.",
        in_letters=True,
        synonyms=("consent", "has_consent"),
    ),
    Field("playhead_ms", Kind.WHOLE, "Position in the ad.", in_letters=True),
    Field("duration_ms", Kind.WHOLE, "Length of the ad.", in_letters=True),
    Field(
        "user_agent",
        Kind.TEXT,
        "User agent of the listener's device.",
        synonyms=("user_agent", "useragent", "ua", "http_user_agent"),
    ),
    Field(
        "invalid_traffic",
        Kind.TEXT,
        "Reason for which the collector judged the call invalid traffic.",
        "takes a text: the reason that the collector found",
    ),
    Field(
        "basis",
        Kind.TEXT,
        "What kind of impression it is.",
        "takes a text: what kind of impression the collector has found",
        in_letters=True,
    ),
    Field("device_confirmed", Kind.TRUTH, "Whether the listener's device itself has made the call."),
    Field("client_id", Kind.ID, "A stable pseudonym of address and user agent, the unit of the IAB."),
    Field(
        "episode",
        Kind.ID,
        "The episode that a download or a delivery is of.",
        in_letters=True,
        synonyms=("episode", "episode_id"),
    ),
    Field("collector", Kind.ID, "Id of the collector that took the call."),
    Field(
        "low_ms",
        Kind.WHOLE,
        "Low mark of that collector, epoch milliseconds.",
        "takes epoch milliseconds, as an integer",
    ),
    Field(
        "ip",
        Kind.TEXT,
        "Address of the listener's device.",
        synonyms=("ip", "ip_address", "ipaddress", "client_ip", "remote_addr"),
    ),
    Field("content_category", Kind.CATEGORIES, "IAB content category of what the ad ran in."),
    Field("landing_url", Kind.TEXT, "Where a click leads, or where a conversion was seen."),
    Field(
        "conversion",
        Kind.OBJECT,
        "The conversion; needed with the event conversion.",
        "takes an object, and is required when event is conversion",
    ),
    Field(
        "previous",
        Kind.OBJECT,
        "Of a conversion: whose it is by the edge's key of before.",
        "takes an object: whose a conversion is by the edge's key of before",
        scanned=False,
    ),
)
NAMES: Final = tuple(field.name for field in FIELDS)
IN_LETTERS: Final = tuple(field.name for field in FIELDS if field.in_letters)
"""Fields that dead letters keep as they came. Dead letters also keep a part of categories and landing URLs.
"""
