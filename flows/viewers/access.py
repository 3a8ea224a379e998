"""Read access: the identity of a reader, and the rows that this reader sees.

A token sees the campaigns that it lists, and those of its advertisers. A placement belongs to the campaign of
its plan; if no plan names one, to the campaign of its latest pixel. A forged pixel therefore moves no planned
placement into view. Rows of other scopes, totals and metrics need `read_all`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from typing import Final, NamedTuple

from pydantic import SecretStr

from flows.settings import ReadRight, ReadToken
from flows.viewers.reader import Rows, Snapshot

EVERY_S: Final = 5.0
"""Time between two reads of the plans, in s."""
MAX_CREDENTIAL_LENGTH: Final = 512
"""The greatest length, in characters, of a token or a session that is read."""
NOBODY_SHA256: Final = "0" * 64
LOCAL_TOKEN: Final = "local"
"""The name of the token that is created if the settings have none."""
_SESSION_KEY: Final = b"audiopixel session key 1"
"""The label that separates this key from other uses of the secret."""
_ALL: Final[frozenset[ReadRight]] = frozenset(("metrics", "read", "tag", "act"))


class Owner(NamedTuple):
    """The campaign and the advertiser of a placement, by its plan.

    An empty `placement` marks a campaign that an invalid plan may name: its advertiser is then unknown.
    """

    placement: str
    campaign: str | None
    advertiser: str | None


@dataclass
class Owners:
    """The owners of the planned placements.

    Args:
        read: returns the owners by the plans in force; None if these plans have not changed.
    """

    read: Callable[[], Iterable[Owner] | None] = lambda: None
    placements: Mapping[str, Owner] = field(default_factory=dict)
    campaigns: Mapping[str, str] = field(default_factory=dict)
    """The advertiser of each campaign whose plans all name that advertiser."""

    def refresh(self) -> None:
        """Read the plans if they have changed; blocks while it reads."""
        if (plans := self.read()) is None:
            return
        named: dict[str, set[str | None]] = {}
        placements = {}
        for plan in plans:
            if plan.placement:
                placements[plan.placement] = plan
            if plan.campaign is not None:
                named.setdefault(plan.campaign, set()).add(plan.advertiser)
        agreed = {campaign: names.pop() for campaign, names in named.items() if len(names) == 1}
        self.placements = placements
        self.campaigns = {campaign: name for campaign, name in agreed.items() if name is not None}

    def campaign_of(self, name: str, row: Mapping[str, str]) -> str | None:
        """The campaign of a placement: its plan's, or its latest pixel's if its plan names neither campaign
        nor advertiser.
        """
        owner = self.placements.get(name)
        if owner is None or owner[1:] == (None, None):
            return row.get("campaign_id")
        return owner.campaign

    def labelled(self, rows: Rows) -> Rows:
        """Placements labelled with their campaign; a row that has this label already is returned
        unchanged.
        """
        relabelled = {
            name: {**row, "campaign_id": owner.campaign}
            for name, owner in self.placements.items()
            if owner.campaign is not None
            and (row := rows.get(name)) is not None
            and row.get("campaign_id") != owner.campaign
        }
        unlabelled = {
            name: {field: value for field, value in rows[name].items() if field != "campaign_id"}
            for name, owner in self.placements.items()
            if owner.campaign is None and owner.advertiser is not None and "campaign_id" in rows.get(name, ())
        }
        return {**rows, **relabelled, **unlabelled} if relabelled or unlabelled else rows

    def relabelled(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with its placements `labelled`."""
        placements = self.labelled(snapshot.rows.get("placement", {}))
        return replace(snapshot, rows={**snapshot.rows, "placement": placements})

    async def keep(self) -> None:
        """Follow the plans until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await asyncio.to_thread(self.refresh)


@dataclass(frozen=True)
class Sight:
    """The part of the rows that a reader sees.

    Attributes:
        name: the token's name; empty for `EVERYTHING` and `NOBODY`.
        everything: true for a token with `read_all`.
    """

    name: str = ""
    everything: bool = False
    campaigns: frozenset[str] = frozenset()
    advertisers: frozenset[str] = frozenset()
    owners: Owners = field(default_factory=Owners, repr=False, compare=False)

    def campaign(self, name: str | None) -> bool:
        """True if a campaign is seen."""
        if self.everything:
            return True
        return name is not None and (
            name in self.campaigns or self.owners.campaigns.get(name) in self.advertisers
        )

    def placement(self, name: str, row: Mapping[str, str]) -> bool:
        """True if a placement is seen.

        Args:
            row: the fields of its row, `campaign_id` among them.
        """
        if self.everything:
            return True
        owner = self.owners.placements.get(name)
        planned = owner is not None and owner.advertiser in self.advertisers
        return planned or self.campaign(self.owners.campaign_of(name, row))

    def row(self, scope: str, name: str, row: Mapping[str, str]) -> bool:
        """True if a row of any scope is seen."""
        match scope:
            case "placement":
                return self.placement(name, row)
            case "campaign":
                return self.campaign(name)
            case _:
                return self.everything

    def rows(self, scope: str, rows: Rows) -> Rows:
        """The rows of a scope that are seen."""
        if self.everything:
            return rows
        return {name: row for name, row in rows.items() if self.row(scope, name, row)}

    def alert(self, alert: Mapping[str, str]) -> bool:
        """True if a change of state is seen: its placement is, and so is an owner that its record names."""
        if self.everything:
            return True
        if "placement" not in alert:  # a silent feed concerns placements of all owners
            return False
        campaign, advertiser = alert.get("campaign"), alert.get("advertiser")
        if not self.placement(alert["placement"], {} if campaign is None else {"campaign_id": campaign}):
            return False
        if self.campaign(campaign) or advertiser in self.advertisers:
            return True
        # A placement that has changed hands hides its earlier records from its new owner.
        owner = self.owners.placements.get(alert["placement"])
        return (
            owner is not None
            and owner.advertiser == advertiser
            and (campaign is None or owner.campaign in (None, campaign))
        )


EVERYTHING: Final = Sight(everything=True)
NOBODY: Final = Sight()
"""The sight of a caller without a token, at a public address."""


def _session_key(key: SecretStr, tokens: Mapping[str, ReadToken]) -> bytes:
    """The key of all sessions. It changes with every field of a token in the settings, which ends the
    sessions.
    """
    token_fields = [
        (
            *(name, token.sha256.get_secret_value(), sorted(token.rights), token.read_all),
            *(sorted(token.campaigns), sorted(token.advertisers)),
        )
        for name, token in sorted(tokens.items())
    ]
    return hmac.digest(
        key.get_secret_value().encode(), _SESSION_KEY + json.dumps(token_fields).encode(), "sha256"
    )


class Access:
    """The readers in the settings. Without any, the reader of one token that is created at the start.

    A request's address and headers do not prove its sender: behind a proxy with default settings, every
    request seems to come from this machine.

    Args:
        tokens: the tokens by name.
        session: the time for which a browser stays signed in.
        owners: the owners of the planned placements.
        clock_s: wall clock, epoch s.
        key: the secret of the sessions, which then outlive a restart; None: a random secret.

    Attributes:
        created_token: the created token, `NAME.SECRET`; None if the settings have tokens.
    """

    def __init__(
        self,
        tokens: Mapping[str, ReadToken] | None = None,
        session: timedelta = timedelta(hours=12),
        owners: Owners | None = None,
        clock_s: Callable[[], float] = time.time,
        key: SecretStr | None = None,
    ) -> None:
        self.owners = owners or Owners()
        self.created_token: str | None = None
        if not tokens:
            secret = secrets.token_urlsafe(32)
            self.created_token = f"{LOCAL_TOKEN}.{secret}"
            digest = SecretStr(sha256(secret.encode()).hexdigest())
            tokens = {LOCAL_TOKEN: ReadToken(sha256=digest, read_all=True, rights=tuple(sorted(_ALL)))}
        self._hashes = {name: token.sha256.get_secret_value() for name, token in tokens.items()}
        self._rights = {name: frozenset(token.rights) for name, token in tokens.items()}
        self._sights = {
            name: EVERYTHING
            if token.read_all
            else Sight(name, False, frozenset(token.campaigns), frozenset(token.advertisers), self.owners)
            for name, token in tokens.items()
        }
        self.session_s = session.total_seconds()
        self.clock_s = clock_s
        self._key = secrets.token_bytes(32) if key is None else _session_key(key, tokens)
        self.owners.refresh()

    def of_token(self, token: str) -> Sight | None:
        """The sight of `NAME.SECRET`; None for an invalid token. Takes constant time but for the name's
        look-up.
        """
        name, _, secret = token.partition(".") if len(token) <= MAX_CREDENTIAL_LENGTH else ("", "", "")
        digest = sha256(secret.encode(errors="replace")).hexdigest()
        valid = hmac.compare_digest(digest, self._hashes.get(name, NOBODY_SHA256))
        return self._sights[name] if valid and name in self._sights else None

    def rights(self, credential: str) -> frozenset[ReadRight]:
        """The rights of a valid token or session."""
        return self._rights.get(credential.partition(".")[0], frozenset())

    def session(self, token: str) -> str:
        """The session of a valid token: `NAME.END.MAC`, with its end in epoch s."""
        text = f"{token.partition('.')[0]}.{int(self.clock_s() + self.session_s)}"
        return f"{text}.{self._mac(text)}"

    def of_session(self, session: str) -> Sight | None:
        """The sight of a session; None if it is invalid or has ended."""
        text, _, mac = session.rpartition(".") if len(session) <= MAX_CREDENTIAL_LENGTH else ("", "", "")
        if not hmac.compare_digest(self._mac(text).encode(), mac.encode(errors="replace")):
            return None
        name, _, end_s = text.partition(".")
        return self._sights.get(name) if int(end_s) > self.clock_s() else None

    def _mac(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(errors="replace"), "sha256").hex()
