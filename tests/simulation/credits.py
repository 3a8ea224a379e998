"""The right decision on a conversion, by chapters 2.4 and 7.3 of the specification. This module shares no
line with the flow.

A server's conversion behind a public tag's of its order confirms that one, where it was credited: it has the
same credits. Else it is decided by itself, at no earlier time than the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from simulation.reading import said

WHOLE: Final = 1_000_000


class Touch(NamedTuple):
    """A click, or a listen: one a play."""

    at_ms: int
    placement: str
    click: bool
    campaign: str | None
    listener: str | None


@dataclass(frozen=True)
class Attribution:
    """The settings that decisions depend on; durations in ms.

    Attributes:
        noisy: more distinct listeners than this, and a household joins nobody.
        denied: who is on the deny-list, by what.
        planned: the campaigns that placements have by their plans.
    """

    model: str
    click_ms: int
    listen_ms: int
    half_life_ms: int
    noisy: int
    utm: Mapping[str, str]
    denied: Mapping[str, str] = field(default_factory=dict)
    planned: Mapping[str, str | None] = field(default_factory=dict)


class Right(NamedTuple):
    """A decision: its rule, the kind of touches that joined it, and (placement, millionths) in order; whether
    the conversion's value is claimed; and the campaigns of credits without a touch.
    """

    rule: str
    joined_by: str | None
    credits: list[tuple[str, int]]
    claimed: bool = False
    campaigns: tuple[str | None, ...] = ()


def decided(
    pixels: Sequence[Mapping[str, Any]], rules: Attribution, behind: Mapping[str, str]
) -> dict[str, Right]:
    """The decision on each conversion of a log by its event id, of the accepted pixels of the whole log; one
    whose household may be noisy is left out.

    Args:
        behind: of servers' conversions the public tags' before them, by event id.
    """
    touches = _touches(pixels, rules.denied)
    times = {pixel["event_id"]: pixel["own_ms"] for pixel in pixels}
    found = dict[str, Right]()
    for pixel in pixels:
        if pixel["event"] != "conversion":
            continue
        claim, right = behind.get(pixel["event_id"]), None
        if claim is None:
            right = _decided(pixel, touches, rules)
        elif claim in found and found[claim].credits:
            right = Right("confirmed", None, found[claim].credits)
        elif claim in found:
            at_ms = max(pixel["own_ms"], times[claim])
            right = _decided({**pixel, "own_ms": at_ms}, touches, rules)
        if right is not None:
            found[pixel["event_id"]] = right._replace(claimed=pixel["conversion"].get("claimed") is True)
    return found


def _touches(
    pixels: Iterable[Mapping[str, Any]], denied: Mapping[str, str]
) -> dict[tuple[str, str], list[Touch]]:
    listens = dict[tuple[str, str], Mapping[str, Any]]()
    counted = list[Mapping[str, Any]]()
    for pixel in pixels:
        play = pixel.get("play_id")
        if pixel["event"] == "click" or (pixel["event"] == "impression" and not play):
            counted.append(pixel)
        elif play and pixel["event"] in ("impression", "start"):
            known = listens.get((pixel["placement_id"], play))
            if known is None or pixel["event"] == "impression":
                listens[pixel["placement_id"], play] = pixel
    found = defaultdict[tuple[str, str], list[Touch]](list)
    for pixel in [*counted, *listens.values()]:
        for of, name in _whose(pixel, denied):
            click, campaign = pixel["event"] == "click", pixel.get("campaign_id")
            touch = (pixel["own_ms"], pixel["placement_id"], click, campaign, pixel.get("listener_id"))
            found[of, name].append(Touch(*touch))
    return found


def _whose(pixel: Mapping[str, Any], denied: Mapping[str, str]) -> list[tuple[str, str]]:
    """The identities by which a pixel is remembered."""
    if pixel.get("consent") is not True:
        return []
    names = [(of, pixel.get(f"{of}_id")) for of in ("listener", "household")]
    return [(of, name) for of, name in names if name is not None and name != denied.get(of)]


def _decided(
    pixel: Mapping[str, Any], touches: Mapping[tuple[str, str], list[Touch]], rules: Attribution
) -> Right | None:
    named = pixel.get("campaign_id")
    if pixel.get("placement_id"):
        target = pixel["placement_id"]
        return Right("declared", None, [(target, WHOLE)], campaigns=(named or rules.planned.get(target),))
    before = {name: said(who) for name, who in (pixel.get("previous") or {}).items()}
    asked = [*_whose(pixel, rules.denied), *_whose(before | {"consent": pixel.get("consent")}, rules.denied)]
    for whose in asked:
        known = touches.get(whose, [])
        if whose[0] == "household" and len({touch.listener for touch in known}) > rules.noisy:
            return None
        some = sorted(touch for touch in known if _eligible(touch, pixel, rules))
        if some:
            return Right(rules.model, whose[0], _credited(some, rules))
    content = parse_qs(urlsplit(pixel.get("landing_url", "")).query).get("utm_content", [""])[0]
    target = ({name: name for name in rules.planned} | dict(rules.utm)).get(content)
    of = rules.planned.get(target or "")
    if target is None or (None not in (named, of) and named != of):
        return Right("none", None, [])
    return Right("utm", None, [(target, WHOLE)], campaigns=(named or of,))


def _eligible(touch: Touch, pixel: Mapping[str, Any], rules: Attribution) -> bool:
    age_ms = pixel["own_ms"] - touch.at_ms
    campaign = pixel.get("campaign_id")
    window_ms = rules.click_ms if touch.click else rules.listen_ms
    return 0 <= age_ms <= window_ms and campaign in (None, touch.campaign)


def _credited(some: Sequence[Touch], rules: Attribution) -> list[tuple[str, int]]:
    """Shares of touches in the order of time and placement; those of 0 are left out."""
    chosen = None
    if rules.model == "last_touch":
        chosen = max([touch for touch in some if touch.click] or some)
    elif rules.model == "first_touch":
        chosen = max(touch for touch in some if touch.at_ms == some[0].at_ms)
    if chosen is not None:
        return [(chosen.placement, WHOLE)]
    newest_ms = some[-1].at_ms
    decays = rules.model == "time_decay"
    weights = [0.5 ** ((newest_ms - one.at_ms) / rules.half_life_ms) if decays else 1.0 for one in some]
    whole = sum(map(Fraction, weights))
    exact = [WHOLE * Fraction(weight) / whole for weight in weights]
    parts = [int(share) for share in exact]
    later = sorted(range(len(some)), key=lambda at: (exact[at] - parts[at], at), reverse=True)
    for at in later[: WHOLE - sum(parts)]:
        parts[at] += 1
    return [(touch.placement, part) for touch, part in zip(some, parts, strict=True)]
