"""The question of a form about tags, read once: the door asks a right of the question, never of the form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The kinds of questions, by the first field of the form that says one."""

    CHECK = "check"
    CONVERSION = "conversion"
    PLACEMENT = "placement"
    CHOICES = "choices"


@dataclass(frozen=True, slots=True)
class Question:
    """A question about tags.

    Args:
        kind: the verdict on a URL, a site's snippet, a placement's tags, or the choices of a form.
        fields: the form's fields without empty ones, which are absent.
    """

    kind: Kind
    fields: Mapping[str, str]

    @property
    def signs(self) -> bool:
        """True if the answer carries a signature, which is one of the campaign in `fields`."""
        return self.kind in (Kind.CONVERSION, Kind.PLACEMENT)


def question_of(form: Mapping[str, str]) -> Question:
    """The question of a form."""
    fields = {name: value for name, value in form.items() if value}
    if "check" in fields:
        kind = Kind.CHECK
    elif "conversion" in fields:
        kind = Kind.CONVERSION
    elif "dialect" in fields or "placement" in fields:
        kind = Kind.PLACEMENT
    else:
        kind = Kind.CHOICES
    return Question(kind, fields)
