"""A collector's understanding of calls, and its signatures, built from the settings."""

from __future__ import annotations

from hashlib import blake2b
from ipaddress import ip_network
from typing import Any

from flows.collector.callers import Callers, Token, networks
from flows.collector.consent import Policy
from flows.collector.dialects import load_dialects
from flows.collector.invalid_traffic import judge_of
from flows.collector.pseudonyms import Pseudonyms
from flows.collector.signatures import Signatures
from flows.collector.understand import IsPlanned, Understanding, nothing_planned
from flows.errors import SettingsError
from flows.settings import Settings


def understanding_of(settings: Settings, planned: IsPlanned | None = None, **options: Any) -> Understanding:
    """The understanding of calls by the settings.

    Args:
        planned: whether a placement, or a campaign, is in the plans.
        options: further arguments of `Understanding`.

    Raises:
        SettingsError: a key is missing, or a list cannot be read.
    """
    key = settings.collect_key
    if key is None:
        raise SettingsError(
            "AUDIOPIXEL_COLLECT_KEY is not set: listeners, devices and households are stored as keyed hashes "
            "alone. Set it to 16 to 64 secret bytes "
            "(python -c 'import secrets; print(secrets.token_hex(16))'), the same for all collectors, and "
            "keep it"
        )
    if settings.collect_placements == "signed" and not settings.collect_signing_keys:
        raise SettingsError(
            "AUDIOPIXEL_COLLECT_SIGNING_KEYS is empty, so that every tag would be rejected: set a key, "
            'such as {"a1": "…"} with a secret of 16 bytes or more '
            "(python -c 'import secrets; print(secrets.token_hex(16))'), or set "
            "AUDIOPIXEL_COLLECT_PLACEMENTS=any for a trial"
        )
    if settings.collect_placements == "planned" and planned is None:
        raise SettingsError(
            "AUDIOPIXEL_COLLECT_PLACEMENTS=planned: there are no plans, so that every pixel would be "
            "rejected: set AUDIOPIXEL_PLANS, or sign tags (audiopixel tag) and set "
            "AUDIOPIXEL_COLLECT_PLACEMENTS=signed"
        )
    secret = key.get_secret_value().encode()
    return Understanding(
        dialects=load_dialects(settings.collect_dialects),
        callers=Callers(
            {
                name: Token(
                    token.sha256,
                    frozenset(token.rights),
                    frozenset(token.campaigns),
                    token.device_from,
                    token.masked,
                )
                for name, token in settings.collect_tokens.items()
            },
            networks(settings.collect_proxies),
            [(ip_network(text, strict=False), place) for text, place in settings.collect_servers.items()],
        ),
        policy=Policy(
            settings.collect_vendor,
            settings.collect_purposes,
            frozenset(settings.collect_interest_purposes),
            settings.collect_needs_disclosure,
            required=settings.consent == "required",
            free=frozenset(country.upper() for country in settings.collect_consent_free),
        ),
        pseudonyms=Pseudonyms(
            secret, [previous.get_secret_value().encode() for previous in settings.collect_previous_keys]
        ),
        judge=judge_of({str(name): path for name, path in settings.collect_lists.items()}),
        signatures=signatures_of(settings),
        key=blake2b(digest_size=32, key=secret, person=b"calls").digest(),
        placements=settings.collect_placements,
        planned=planned or nothing_planned,
        **options,
    )


def signatures_of(settings: Settings) -> Signatures:
    """The signatures of tags, by the settings."""
    keys = {name: key.get_secret_value().encode() for name, key in settings.collect_signing_keys.items()}
    return Signatures(keys, frozenset(settings.collect_click_hosts))
