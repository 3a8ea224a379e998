"""Sentences about placements and campaigns: what happens, since when, what it costs, the likeliest cause.

Owns: the rules that make a sentence of published fields. Receives: rows as Redis has them. Sends: plain text
of at most 280 characters, which the code that shows it must escape. Must not import: another room.
"""

from __future__ import annotations

from flows.sentence.causes import Cause, Context, Tag, cause
from flows.sentence.row_sentence import MOST, sentence

__all__ = ["MOST", "Cause", "Context", "Tag", "cause", "sentence"]
