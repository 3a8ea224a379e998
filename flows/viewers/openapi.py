"""The OpenAPI 3.1 document of the read API."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from flows.model.catalogue.metrics import BY_FIELD, TEXTS, Unit
from flows.model.dimensions import SCOPES

_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "One segment of the path, percent-encoded, a slash in it too.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128},
}
FORMATS: Final = ("json", "csv")
_FORMAT: Final = {
    "name": "format",
    "in": "query",
    "description": "`csv` for CSV, as `Accept: text/csv` is.",
    "schema": {"type": "string", "enum": [*FORMATS]},
}
_IF_NONE_MATCH: Final = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The ETag of a version that is known.",
    "schema": {"type": "string"},
}
_WHOLE: Final = {"type": "integer"}
_MOMENT: Final = {"type": ["integer", "null"], "description": "Epoch ms."}
_VALUE: Final = {"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "string"}]}
_TYPES: Final[Mapping[str, Mapping[str, Any]]] = {
    Unit.MONEY: {"type": "number"},
    Unit.MILLISECOND: {"type": "integer"},
    Unit.TRUTH: {"type": "integer", "enum": [0, 1]},
    **{unit: {"type": "string"} for unit in TEXTS},
}
"""The types of values, by the unit of their metric."""
_FIELDS: Final = {
    "type": "object",
    "description": "The fields of the contract; a null is an absent field, and a whole number beyond 2^53 "
    "is text.",
    "properties": {
        field: {**_TYPES[metric.unit], "description": metric.api}
        for field, metric in BY_FIELD.items()
        if metric.api
    },
    "additionalProperties": _VALUE,
}
_SILENT: Final = {
    "type": "object",
    "description": "The silent feeds, by `partition:NAME`, `platform:NAME` or `sender:ID`; absent: none.",
    "additionalProperties": {
        "type": "object",
        "properties": {
            "since_ms": {"type": "integer", "description": "Epoch ms of its last pixel."},
            "placements": {"type": "integer", "description": "Placements with pixels of it."},
            "money_per_hour": {
                "type": "object",
                "description": "Worth of what it brings an hour, by currency, in whole units of it.",
                "additionalProperties": {"type": "string"},
            },
        },
        "required": ["since_ms"],
    },
}


def document() -> dict[str, Any]:
    """The description of every address below `/v1/`, for JSON."""
    try:
        release = version("audiopixel")
    except PackageNotFoundError:  # run from its sources
        release = "0"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "audiopixel",
            "version": release,
            "description": "Live numbers of audio ads: rows, minutes and decisions, each reader's own. "
            "What a reader may not see is answered 404.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "NAME.SECRET"},
                "session": {"type": "apiKey", "in": "cookie", "name": "audiopixel_session"},
            },
            "schemas": _schemas(),
        },
    }


def _paths() -> dict[str, Any]:
    rows = {
        f"/v1/{scope}s/{{id}}": _get(
            f"get_{scope}", f"One {scope}.", "Row", [_ID, _FORMAT, _IF_NONE_MATCH], True
        )
        for scope in SCOPES
    }
    by = [_query("id", "The row of this id alone."), _query("after", "The ids after this one."), _FORMAT]
    campaign_query = _query("campaign", "The placements of this campaign, by plan, else by latest pixel.")
    return rows | {
        "/v1/placements": _get(
            "list_placements", "The placements in sight, by id.", "Placements",
            [*by, campaign_query],
        ),
        "/v1/campaigns": _get("list_campaigns", "The campaigns in sight, by id.", "Campaigns", by),
        "/v1/placements/{id}/minutes": _get(
            "get_placement_minutes", "The latest minutes of a placement, provisional or final.", "Minutes",
            [_ID, _FORMAT],
        ),
        "/v1/placements/{id}/course": _get(
            "get_placement_course", "A placement's rate by minute, its projection, and what happened.",
            "Course", [_ID],
        ),
        "/v1/conversions/{id}": _get(
            "get_conversion", "The decisions on a conversion, by its order's or event's id.",
            "Decisions", [_ID],
        ),
        "/v1/other/{id}": _get(
            "get_other", "The counts of the names beyond a scope's cap together, by scope.", "Row",
            [_ID, _FORMAT, _IF_NONE_MATCH], True,
        ),
        "/v1/methodology": _get(
            "get_methodology", "How each number is counted, by the flow's settings.", "Methodology", []
        ),
        "/v1/methodology/{id}": _get(
            "get_methodology_of", "The same of an earlier hash, such as a final minute's.", "Methodology",
            [_ID],
        ),
        "/v1/meta": _get("get_meta", "How fresh the numbers are.", "Meta", []),
    }  # fmt: skip


def _query(name: str, words: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": words, "schema": {"type": "string"}}


def _get(
    name: str, words: str, schema: str, parameters: list[dict[str, Any]], tagged: bool = False
) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    if _FORMAT in parameters:
        content["text/csv"] = {"schema": {"type": "string"}}
    success: dict[str, Any] = {"description": words, "content": content}
    if tagged:
        success["headers"] = {"ETag": {"description": "The row's version.", "schema": {"type": "string"}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    answers: dict[str, Any] = {
        "200": success,
        "401": {"description": "No valid token or session."},
        "404": {"description": "There is none in sight.", "content": error},
        "503": {"description": "The numbers cannot be read now.", "content": error},
    }
    if _FORMAT in parameters:
        answers["400"] = {"description": "There is no such format.", "content": error}
    if tagged:
        answers["304"] = {"description": "The row still has the version in If-None-Match."}
    return {"get": {"operationId": name, "summary": words, "parameters": parameters, "responses": answers}}


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], **more}


def _list(name: str) -> dict[str, Any]:
    rows = {"type": "array", "items": {"$ref": "#/components/schemas/Listed"}}
    after = {
        "type": ["string", "null"],
        "description": "The id to pass as `after` for the next page; null on the last page.",
    }
    return _object({name: rows, "after": after})


def _course() -> dict[str, Any]:
    rate = {"type": ["number", "null"], "description": "Impressions a minute."}
    amount = {"type": ["number", "null"]}
    flight = dict.fromkeys(("booked", "delivered", "expected", "projected"), amount)
    whole = {"type": "array", "items": _WHOLE}
    mark = {
        "kind": {"type": "string", "enum": ["state", "feed", "plan"]},
        "at_ms": _WHOLE,
        "from": {"type": ["string", "null"]},
        "to": {"type": ["string", "null"]},
        "unit": {"type": "string"},
        "until_ms": _MOMENT,
        "booked_before": {"type": ["number", "null"]},
    }
    return _object(
        {
            "placement": {"type": "string"},
            "as_of_ms": _MOMENT,
            "flight": _object({"start_ms": _MOMENT, "end_ms": _MOMENT, **flight}),
            **dict.fromkeys(("needed_per_minute", "due_per_minute", "projected_per_minute"), rate),
            "minutes": _object({"at_ms": whole, "impressions": whole, "final_through_ms": _MOMENT}),
            "marks": {
                "type": "array",
                "items": {"type": "object", "properties": mark, "required": ["kind", "at_ms"]},
            },
        }
    )


def _schemas() -> dict[str, Any]:
    times = ("as_of_ms", "final_through_ms", "reach_as_of_ms", "updated_ms")
    return {
        "Version": _object(
            dict.fromkeys(("generation", "fence", "rev"), _WHOLE),
            description="Compared in this order; never falls.",
        ),
        "Row": _object(
            {
                "scope": {"type": "string"},
                "id": {"type": "string"},
                "version": {"$ref": "#/components/schemas/Version"},
                **dict.fromkeys(times, _MOMENT),
                "fields": _FIELDS,
                "sentence": {
                    "type": "string",
                    "description": "Of a placement or a campaign: what happens, since when, what it costs, "
                    "and the likeliest cause; times are of `?zone=`, an IANA name.",
                },
            }
        ),
        "Listed": _object({"id": {"type": "string"}, "fields": _FIELDS}),
        "Placements": _list("placements"),
        "Campaigns": _list("campaigns"),
        "Minutes": _object(
            {
                "placement": {"type": "string"},
                "kept_since_ms": _MOMENT,
                "minutes": {"type": "array", "items": {"$ref": "#/components/schemas/Minute"}},
            }
        ),
        "Minute": _object(
            {
                "placement_id": {"type": "string"},
                "minute_ms": _WHOLE,
                "state": {"type": "string", "enum": ["provisional", "final"]},
                "rev": _WHOLE,
                "as_of_ms": _WHOLE,
            },
            additionalProperties={"anyOf": [*_VALUE["anyOf"], {"type": "null"}]},
        ),
        "Course": _course(),
        "Decisions": _object(
            {
                "conversion": {"type": "string"},
                "decisions": {"type": "array", "items": {"type": "object", "additionalProperties": True}},
            }
        ),
        "Methodology": _object(
            {
                "hash": {"type": "string"},
                "version": {"type": "string"},
                "rules": {"type": "object", "additionalProperties": {"type": "string"}},
                "metrics": {
                    "type": "object",
                    "additionalProperties": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            }
        ),
        "Meta": {"type": "object", "properties": {"silent": _SILENT}, "additionalProperties": _VALUE},
        "Error": _object({"error": {"type": "string"}}),
    }
