"""A collector's understanding of calls, and its signatures, built from the settings."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from ipaddress import ip_network
from typing import Any

from flows.collector.callers import Callers, Token, networks
from flows.collector.consent import Policy
from flows.collector.dialects import load_dialects
from flows.collector.invalid_traffic import judge_of
from flows.collector.pseudonyms import Pseudonyms
from flows.collector.signatures import Signatures
from flows.collector.understand import Understanding
from flows.errors import SettingsError
from flows.settings import Settings

Who = Callable[[str | None, str | None], bool]


def understanding_of(settings: Settings, planned: Who | None = None, **more: Any) -> Understanding:
    """The understanding of calls that the settings ask for.

    Args:
        planned: whether a placement, or a campaign, is in the plans.

    Raises:
        SettingsError: a key is missing, or a list cannot be read.
    """
    key = settings.collect_key
    if key is None:
        raise SettingsError(
            "AUDIOPIXEL_COLLECT_KEY is not set: listeners, devices and households are known by keyed hashes "
            "alone. Set it to 16 to 64 secret bytes "
            "(python -c 'import secrets; print(secrets.token_hex(16))'), the same for all collectors, and "
            "keep it"
        )
    if settings.collect_placements == "signed" and not settings.collect_signing_keys:
        raise SettingsError(
            "AUDIOPIXEL_COLLECT_SIGNING_KEYS is empty, so that no tag could pass: give a key, "
            'such as {"a1": "…"} with a secret of 16 bytes or more '
            "(python -c 'import secrets; print(secrets.token_hex(16))'), or say "
            "AUDIOPIXEL_COLLECT_PLACEMENTS=any for a trial"
        )
    if settings.collect_placements == "planned" and planned is None:
        raise SettingsError(
            "AUDIOPIXEL_COLLECT_PLACEMENTS=planned: there are no plans (AUDIOPIXEL_PLANS), so that every "
            "pixel would be rejected: name them, or sign tags (audiopixel tag) and say signed"
        )
    secret = key.get_secret_value().encode()
    return Understanding(
        dialects=load_dialects(settings.collect_dialects),
        callers=Callers(
            {
                name: Token(
                    one.sha256, frozenset(one.rights), frozenset(one.campaigns), one.device_from, one.masked
                )
                for name, one in settings.collect_tokens.items()
            },
            networks(settings.collect_proxies),
            [(ip_network(net, strict=False), where) for net, where in settings.collect_servers.items()],
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
            secret, [one.get_secret_value().encode() for one in settings.collect_previous_keys]
        ),
        judge=judge_of({str(name): path for name, path in settings.collect_lists.items()}),
        signatures=signatures_of(settings),
        key=blake2b(digest_size=32, key=secret, person=b"calls").digest(),
        placements=settings.collect_placements,
        planned=planned or _nobody,
        **more,
    )


def _nobody(placement: str | None, campaign: str | None) -> bool:
    return False


def signatures_of(settings: Settings) -> Signatures:
    """The signatures of tags, by the settings."""
    keys = {name: key.get_secret_value().encode() for name, key in settings.collect_signing_keys.items()}
    return Signatures(keys, frozenset(settings.collect_click_hosts))
