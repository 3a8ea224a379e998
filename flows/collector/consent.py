"""Consent: the decision whether a listener may be measured, from the call's signals and the operator's
policy.

The signals are read in this order, and the first *no* decides: COPPA, limit ad tracking, Global Privacy
Control, TCF or GPP, US privacy, a trusted caller's own word, the default. The answer and its reason are
stored, the strings are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Literal, NamedTuple, get_args

from flows.collector import gpp, tcf

Reason = Literal[
    "given",
    "no_string",
    "unreadable",
    "policy",
    "not_disclosed",
    "purpose",
    "vendor",
    "lmt",
    "child",
    "opted_out",
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
WORDS: Final[Mapping[Reason, str]] = {
    "given": "may be measured",
    "no_string": "consent is needed, and the call carries no consent string",
    "unreadable": "the consent string cannot be read, or a section of it that applies, or another signal",
    "policy": "the consent string is of a form that the framework no longer allows",
    "not_disclosed": "the user was not shown this vendor",
    "purpose": "the user has not agreed to a purpose that measurement needs",
    "vendor": "the user has not agreed to this vendor",
    "lmt": "the device limits ad tracking",
    "child": "the call is marked as a child's",
    "opted_out": "the user has opted out of sale, sharing or targeted advertising",
}
MIN_POLICY: Final = 4
"""Strings of earlier policies are invalid since 30 September 2023."""
DISCLOSED_FROM_MS: Final = 1_772_236_800_000
"""28 February 2026: strings created after that day began must list the vendors disclosed (TCF 2.3)."""
_DAY_MS: Final = 86_400_000
_MAX_KNOWN: Final = 16_384
_LONGEST_KNOWN: Final = 1_024
"""The greatest length of a TC string that is cached as it is, 16 MB in all. Longer strings are cached by
their digests.
"""


class Consent(NamedTuple):
    """The decision whether a listener may be measured, with its reason. `unknown_sections` are the sections
    of a GPP string that the call names and this module cannot read.
    """

    is_given: bool
    reason: Reason
    unknown_sections: tuple[int, ...] = ()


@dataclass(slots=True)  # `frozen` would triple the time of making one
class Signals:
    """The consent signals of a call; an empty signal is absent.

    Attributes:
        gdpr: whether the GDPR applies; None if unknown.
        tc_string, gpp, us_privacy: the strings as they came.
        gpp_sid: ids of the sections that apply; if empty, all sections of the string apply.
        unreadable: whether a signal other than the strings cannot be read, and may be a refusal.
        lmt, child: limit ad tracking; COPPA or child-directed treatment.
        gpc: the Global Privacy Control, of the header `Sec-GPC` or of the call's parameters.
        country: ISO 3166-1 alpha-2.
        own_consent: the parameter `consent` of a caller that may decide; None if absent.
    """

    gdpr: bool | None = None
    tc_string: str = ""
    gpp: str = ""
    gpp_sid: tuple[int, ...] = ()
    us_privacy: str = ""
    lmt: bool = False
    child: bool = False
    gpc: bool = False
    country: str = ""
    own_consent: bool | None = None
    unreadable: bool = False


@dataclass(frozen=True)
class Policy:
    """The operator's policy on consent.

    Args:
        vendor: the operator's id in the Global Vendor List; None requires no vendor's consent.
        purposes: the numbers of the purposes that measurement needs.
        by_interest: the purposes for which the vendor has registered a legitimate interest.
        needs_disclosure: whether a vendor must have been disclosed even if it relies on consent.
        accepts_purpose_one_treatment: whether purpose 1 needs no consent if the publisher's country does not
            require it.
        required: whether a call without any signal needs consent.
        free: the countries in which it does not, ISO 3166-1 alpha-2.
    """

    vendor: int | None = None
    purposes: tuple[int, ...] = (1, 7)
    by_interest: frozenset[int] = frozenset()
    needs_disclosure: bool = False
    accepts_purpose_one_treatment: bool = False
    required: bool = True
    free: frozenset[str] = frozenset()
    _reasons: dict[str | bytes, Reason] = field(default_factory=dict, compare=False, repr=False)

    def decide(self, signals: Signals) -> Consent:
        """Apply this policy to the signals of one call; raises for no input."""
        if signals.child:
            return Consent(False, "child")
        if signals.lmt:
            return Consent(False, "lmt")
        if signals.gpc:
            return Consent(False, "opted_out")
        if signals.unreadable:
            return Consent(False, "unreadable")
        unknown: list[int] = []
        answers: list[Reason] = []
        if not signals.gpp and not signals.us_privacy:  # most calls, without the generator's time
            if signals.gdpr is not False and (signals.tc_string or signals.gdpr):
                reason = self.of_tc_string(signals.tc_string)
                if reason != "given":
                    return Consent(False, reason)
                answers.append(reason)
            return self._without_refusal(signals, answers, ())
        for answer in self._answers(signals, unknown):
            if answer != "given":
                return Consent(False, answer, tuple(unknown))
            answers.append(answer)
        return self._without_refusal(signals, answers, tuple(unknown))

    def _without_refusal(
        self, signals: Signals, answers: list[Reason], unknown_sections: tuple[int, ...]
    ) -> Consent:
        """The decision if no signal refuses: a trusted caller's own word, then the default."""
        if signals.own_consent is not None:
            return Consent(
                signals.own_consent, "given" if signals.own_consent else "opted_out", unknown_sections
            )
        if answers or not self.required or signals.country in self.free:
            return Consent(True, "given", unknown_sections)
        return Consent(False, "no_string", unknown_sections)

    def _answers(self, signals: Signals, unknown: list[int]) -> Iterator[Reason]:
        """The answers of the call's strings, in order; `unknown` receives the sections without an answer."""
        misplaced = signals.gpp.startswith("C")  # a TC string in the wrong place: a common fault
        tc_string = signals.tc_string or (signals.gpp if misplaced else "")
        sections: Mapping[int, str] | None = {}
        if signals.gpp and not misplaced:
            try:
                sections = gpp.sections(signals.gpp)
            except ValueError:
                sections = None
        named = [section for section in signals.gpp_sid if section]  # 0: not yet determined
        # A call that names no section means every section of the string.
        applying = dict.fromkeys((named or sections or ()) if signals.gpp else ())
        in_gpp = not tc_string and gpp.TCF_EU in applying
        if signals.gdpr is not False and (tc_string or signals.gdpr) and not in_gpp:
            yield self.of_tc_string(tc_string)
        if sections is None:
            yield "unreadable"
            return
        for section in applying:
            body = sections.get(section, "")
            if section == gpp.TCF_EU:
                if signals.gdpr is not False and (body or not tc_string):
                    yield self.of_tc_string(body)
            elif body and gpp.is_known(section):
                yield from _of_states(section, body, bool(named))
            elif section != gpp.USP or not signals.us_privacy:
                # The section applies, and is missing or unreadable here: it may be a refusal.
                unknown.append(section)
                yield "unreadable" if body else "no_string"
        if signals.us_privacy:
            yield from _of_states(gpp.USP, signals.us_privacy, True)

    def of_tc_string(self, text: str) -> Reason:
        """The answer of a TC string. Strings repeat, so answers are cached."""
        # A sender of ever new long strings must not fill the memory.
        key = text if len(text) <= _LONGEST_KNOWN else blake2b(text.encode(errors="replace")).digest()
        reason = self._reasons.get(key)
        if reason is not None:
            return reason
        answer = self._judge(text)
        if len(self._reasons) >= _MAX_KNOWN:
            self._reasons.clear()
        self._reasons[key] = answer
        return answer

    def _judge(self, text: str) -> Reason:
        if not text:
            return "no_string"
        try:
            tc_string = tcf.decode(text)
        except ValueError:
            return "unreadable"
        if tc_string.policy_version < MIN_POLICY or not tc_string.service_specific:
            return "policy"
        if tc_string.disclosed is None and tc_string.created_ms >= DISCLOSED_FROM_MS + _DAY_MS:
            return "policy"
        shown = tc_string.disclosed is None or self.vendor is None or self.vendor in tc_string.disclosed
        if self.needs_disclosure and not shown:
            return "not_disclosed"
        for purpose in self.purposes:
            reason = self._purpose(tc_string, purpose)
            if reason != "given":
                return reason
        return "given"

    def _purpose(self, tc_string: tcf.TcString, purpose: int) -> Reason:
        """`given` if one purpose has a basis, consent first; else the reason why it has none."""
        if purpose == 1 and tc_string.purpose_one_treatment and self.accepts_purpose_one_treatment:
            return "given"
        vendor, agreed = self.vendor, tc_string.consents_to(purpose)
        if vendor is None:
            return "given" if agreed else "purpose"
        if tc_string.restricted(purpose, vendor, tcf.NOT_ALLOWED):
            return "purpose"
        by_consent = agreed and not tc_string.restricted(purpose, vendor, tcf.REQUIRE_INTEREST)
        if by_consent and vendor in tc_string.vendors:
            return "given"
        by_interest = purpose in self.by_interest and tc_string.accepts_interest(purpose)
        banned = tc_string.restricted(purpose, vendor, tcf.REQUIRE_CONSENT)
        if by_interest and vendor in tc_string.vendor_interests and not banned:
            disclosed = tc_string.disclosed is None or vendor in tc_string.disclosed
            return "given" if disclosed else "not_disclosed"
        return "vendor" if by_consent else "purpose"


def _of_states(section: int, body: str, named: bool) -> Iterator[Reason]:
    """Yield the answer of a section of the United States; none if the section states that its law does not
    apply.

    Args:
        named: whether the call names this section as one that applies.
    """
    try:
        out = gpp.opted_out(section, body)
        if out is not None and (out or named or gpp.answers(section, body)):
            yield "opted_out" if out else "given"
    except ValueError:
        yield "unreadable"
