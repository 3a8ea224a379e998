"""The settings of read access, a part of `flows.settings.Settings`."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from flows.settings.secret_key import Key
from flows.settings.wording import Takes

_NAME = "[A-Za-z0-9_-]{1,64}"
ReadRight = Literal["metrics", "read", "tag", "act"]
"""`metrics`: what Prometheus scrapes; `read`: rows, the page, AdCP; `tag`: signed tags; `act`: addresses that
change what other readers see.
"""
_OF_EVERYTHING = {"tag", "act"}


class ReadToken(BaseModel):
    """A token of a reader, which shows `NAME.SECRET`. The settings have only the SHA-256 of the secret.

    The reader sees the listed campaigns, and by the plans the campaigns of the listed advertisers; with
    `read_all` everything. Its rights determine which addresses it may request.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: SecretStr
    campaigns: tuple[str, ...] = ()
    advertisers: tuple[str, ...] = ()
    read_all: bool = False
    rights: tuple[ReadRight, ...] = ("metrics", "read")

    @field_validator("sha256")
    @classmethod
    def _hexadecimal(cls, sha256: SecretStr) -> SecretStr:
        if re.fullmatch("[0-9a-f]{64}", sha256.get_secret_value()) is None:
            raise ValueError("sha256 takes 64 digits of hexadecimal in lower case")
        return sha256

    @model_validator(mode="after")
    def _sees_something(self) -> ReadToken:
        if not (self.campaigns or self.advertisers or self.read_all):
            raise ValueError("a token needs campaigns, advertisers or read_all")
        if not self.rights:
            raise ValueError("a token needs a right: metrics, read, tag or act")
        if not self.read_all and _OF_EVERYTHING & {*self.rights}:
            raise ValueError("the rights tag and act are for tokens with read_all")
        return self


class ReadSettings(BaseModel):
    """The settings of read access to the exporter."""

    read_tokens: dict[str, ReadToken] = Field(
        default_factory=dict,
        description="readers by name, with the SHA-256 of their secret; without any the exporter serves "
        "loopback alone, and prints a token that it makes at its start",
    )
    read_session: timedelta = Field(
        timedelta(hours=12), ge=timedelta(minutes=1), description="how long a browser stays signed in"
    )
    read_session_key: Key = Field(
        None,
        description="secret of the sessions of browsers, so that they outlive a restart of the exporter; "
        "without it a restart signs everybody out",
    )

    theirs: Annotated[Path | None, Takes("path, or unset")] = Field(
        None,
        description="file of others' counts that the live page compares with ours, in the form of audiopixel "
        "discrepancy; it is read again when it changes",
    )

    docs_url: Annotated[str | None, Takes("http:// or https:// URL, or unset")] = Field(
        None,
        description="address at which people on call reach the exporter's documents, such as "
        "https://desk.example.com/docs; alerts and panels link there, or nowhere if it is unset",
    )

    @field_validator("docs_url")
    @classmethod
    def _docs_address(cls, url: str | None) -> str | None:
        if url is not None and re.fullmatch(r"https?://[^\s?#<>|\"'{}]+", url) is None:
            raise ValueError("takes an address such as https://desk.example.com/docs")
        return url

    @field_validator("read_tokens")
    @classmethod
    def _read_names(cls, tokens: dict[str, ReadToken]) -> dict[str, ReadToken]:
        if any(re.fullmatch(_NAME, name) is None for name in tokens):
            raise ValueError("a token's name has 1 to 64 letters, digits, _ and -")
        return tokens
