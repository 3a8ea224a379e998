"""Validators by the schemas of AdCP that are kept for the tests."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from referencing import Registry, Resource

DATA = Path(__file__).parents[1] / "data" / "adcp"
ORIGIN = "https://adcontextprotocol.org/schemas/3.2.4/"


@cache
def schemas() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress((DATA / "schemas.json.gz").read_bytes()))
    return found


def retrieve(uri: str) -> Resource[Any]:
    path = uri.split("/schemas/")[1].removeprefix("3.2.4/")
    return Resource.from_contents(schemas()[path])


@cache
def validator(path: str) -> Draft7Validator:
    registry: Registry[Any] = Registry(retrieve=retrieve)  # type: ignore[call-arg]  # as its own documentation has it
    schema = {"$ref": f"{ORIGIN}{path}"}
    return Draft7Validator(schema, registry=registry, format_checker=Draft7Validator.FORMAT_CHECKER)
