"""A sentence about a placement or a campaign: what happens, since when, what it costs, the likeliest cause.

Owns: the rules that make it of published fields. Receives: rows, as they are in Redis. Sends: plain text of
at most 280 characters; the code that shows it escapes it. Must not import: another room.
"""

from __future__ import annotations

from flows.sentence.causes import Cause, Context, Tag, cause
from flows.sentence.row_sentence import MOST, sentence

__all__ = ["MOST", "Cause", "Context", "Tag", "cause", "sentence"]
