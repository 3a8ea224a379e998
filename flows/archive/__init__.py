"""The archive: stores the raw messages of the topic, and serves them as an input in place of the topic.

Owns: segments, their manifest, and the list of removed people. Receives: the topic, the deny-list.
Sends: the same partitions at the same offsets (`ArchiveInput`); hours for a warehouse.
Must not import: a stage but intake, the engine.
"""

from __future__ import annotations

from flows.archive.checking import Checked, Ledgers, check, ledger_of
from flows.archive.commands import hours, store_of, write
from flows.archive.from_messages import write_from_messages
from flows.archive.history import HistoryInput
from flows.archive.reader import ADDRESS, ArchiveInput, ArchiveReader

__all__ = [
    "ADDRESS",
    "ArchiveInput",
    "ArchiveReader",
    "Checked",
    "HistoryInput",
    "Ledgers",
    "check",
    "hours",
    "ledger_of",
    "store_of",
    "write",
    "write_from_messages",
]
