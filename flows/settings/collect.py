"""The settings of the collector, a part of `flows.settings.Settings`."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from flows.settings.secret_key import Key, fits
from flows.settings.wording import Takes

_SECRETS = ("collect_key",)
Purpose = Annotated[int, Field(ge=1, le=24)]
"""A purpose of the TCF: a consent string has 24 bits of them."""
DeviceFrom = Literal["transport", "x-device", "xff-first", "xff-last", "query"]
Lists = Literal[
    "opawg_bots",
    "opawg_apps",
    "opawg_devices",
    "opawg_libraries",
    "iab_include",
    "iab_exclude",
    "data_centres",
]


class TokenSetting(BaseModel):
    """A caller that shows `Authorization: Bearer NAME.SECRET`; the settings have its SHA-256 alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    rights: tuple[Literal["write", "debug", "tag"], ...] = ()
    campaigns: tuple[str, ...] = ()
    device_from: DeviceFrom | None = None
    masked: bool = False


class CollectSettings(BaseModel):
    """The settings of a collector, and of sources."""

    sources: Path = Field(
        Path("sources"), description="directory of sources, a TOML file each (audiopixel sources)"
    )
    sources_port: int = Field(
        9610, ge=0, le=65535, description="port of live sources' /metrics; `0` opens none"
    )
    collect_url: str | None = Field(
        None,
        description="public address of the doors, such as https://pixels.example.com; tags begin with it, "
        "and the exporter requests signed tags there",
    )
    collect_host: Annotated[str, Takes("IP address")] = Field(
        "127.0.0.1", description="address that the collector's doors listen on"
    )
    collect_port: int = Field(9580, ge=1, le=65535, description="port of the collector's doors")
    collect_health_port: int = Field(
        9590,
        ge=0,
        le=65535,
        description="port of the collector's /metrics, /live and /ready; each further process takes the next "
        "one; `0` opens none",
    )
    collect_figures: bool = Field(
        True, description="whether a collector writes its figures to Redis, where the live page reads them"
    )
    collect_spool: Path = Field(
        Path("spool"), description="directory of the spools, one below it for each process"
    )
    collect_spool_bytes: int = Field(
        8 << 30, ge=1 << 20, description="bytes that one process may have on its spool; beyond that: 503"
    )
    collect_drain: timedelta = Field(
        timedelta(seconds=10),
        ge=timedelta(0),
        description="how long the collector goes on serving after SIGTERM, until balancers send elsewhere",
    )
    collect_calls_per_caller: int = Field(
        1_000,
        ge=0,
        description="calls that one public address may make in a second, callers with a token and known "
        "servers apart; `0` is no cap",
    )
    collect_key: Key = Field(None, description="secret of the edge's pseudonyms, the same for all collectors")
    collect_previous_keys: tuple[SecretStr, ...] = Field(
        (), description="keys of the edge that were in force before, the newest first, for 60 days"
    )
    collect_signing_keys: Annotated[
        dict[str, SecretStr], Takes("{text: secret text of 16 bytes or more}")
    ] = Field(
        default_factory=dict,
        description="secrets that sign tags, by a short id of yours; the first signs, all are accepted",
    )
    collect_placements: Literal["signed", "planned", "any"] = Field(
        "signed",
        description="who may make a row: `signed` tags, `planned` placements, or `any` call, for trials",
    )
    collect_click_hosts: tuple[str, ...] = Field(
        (), description="hosts that a click may lead to without a signature"
    )
    collect_proxies: tuple[str, ...] = Field(
        (), description="networks of your own proxies and balancers, through which X-Forwarded-For is read"
    )
    collect_servers: dict[str, DeviceFrom] = Field(
        default_factory=dict,
        description="networks of known servers, with where their calls have the device's address",
    )
    collect_tokens: dict[str, TokenSetting] = Field(
        default_factory=dict, description="callers by name, with the SHA-256 of their secret"
    )
    kafka_methodology_topic: Annotated[str, Takes("name of a topic")] = Field(
        "methodology", description="topic of the descriptions of how numbers are counted, compactable"
    )
    collect_token: Annotated[SecretStr | None, Takes("NAME.SECRET of a token, or unset")] = Field(
        None,
        description="token that the exporter shows at the doors, which may `tag`",
    )
    collect_vendor: int | None = Field(
        None, ge=1, description="your id in the Global Vendor List; without it only purposes are checked"
    )
    collect_purposes: tuple[Purpose, ...] = Field(
        (1, 7), description="purposes of the TCF that measurement needs; 9 is for audience figures"
    )
    collect_interest_purposes: tuple[Purpose, ...] = Field(
        (), description="those of them for which you have registered a legitimate interest"
    )
    collect_needs_disclosure: bool = Field(
        False, description="whether a vendor that relies on consent must also have been disclosed"
    )
    collect_consent_free: tuple[str, ...] = Field(
        (), description="countries (two letters), as known callers state them, in which no consent is needed"
    )
    collect_lists: dict[Lists, Path] = Field(
        default_factory=dict, description="files of lists of invalid traffic, by the name of the list"
    )
    collect_dialects: Path | None = Field(
        None, description="a TOML file of dialects of your own, which win over ours"
    )

    @field_validator("collect_host")
    @classmethod
    def _collect_address(cls, host: str) -> str:
        try:
            if "%" not in host:
                return str(ip_address(host))
        except ValueError:
            pass
        raise ValueError("takes an IP address: 127.0.0.1, 0.0.0.0 or ::1")

    @field_validator("collect_click_hosts")
    @classmethod
    def _collect_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if any(re.fullmatch(r"[A-Za-z0-9._-]+", host) is None for host in hosts):
            raise ValueError("takes hosts as shop.example: no scheme, port, path or *; other letters as xn--")
        return tuple(host.lower() for host in hosts)

    @field_validator("collect_tokens")
    @classmethod
    def _collect_names(cls, tokens: dict[str, TokenSetting]) -> dict[str, TokenSetting]:
        if any(re.fullmatch("[A-Za-z0-9_-]{1,64}", name) is None for name in tokens):
            raise ValueError("a token's name has 1 to 64 letters, digits, _ and -")
        return tokens

    @field_validator("collect_consent_free")
    @classmethod
    def _collect_countries(cls, countries: tuple[str, ...]) -> tuple[str, ...]:
        if any(re.fullmatch("[A-Za-z]{2}", country) is None for country in countries):
            raise ValueError("takes countries by two letters: US")
        return countries

    @field_validator("collect_previous_keys")
    @classmethod
    def _collect_previous_length(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(map(fits, keys)):
            raise ValueError("takes keys of 16 to 64 bytes")
        return keys

    @field_validator("collect_signing_keys")
    @classmethod
    def _collect_signing_ids(cls, keys: dict[str, SecretStr]) -> dict[str, SecretStr]:
        if any(re.fullmatch("[A-Za-z0-9_-]{1,16}", name) is None for name in keys):
            raise ValueError("an id has 1 to 16 letters, digits, _ and -")
        if any(len(key.get_secret_value()) < 16 for key in keys.values()):
            raise ValueError("takes secrets of 16 bytes or more")
        return keys

    @field_validator("collect_proxies", "collect_servers")
    @classmethod
    def _collect_networks(cls, networks: object) -> object:
        assert isinstance(networks, tuple | dict)
        for network in networks:
            ip_network(str(network), strict=False)
        return networks
