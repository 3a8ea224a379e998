"""The only room that imports Bytewax: sources, steps, sinks, aligned barriers, running a flow, a cluster.

Owns: the aligners. Receives: an input. Sends: what the stages send.
Must not import: viewers, cli.
"""

from __future__ import annotations

from flows.engine.cluster import Cluster, end_with_supervisor, members
from flows.engine.committer import CommitSink
from flows.engine.cut_step import Step
from flows.engine.dealing import deal
from flows.engine.execution import execute
from flows.engine.exit_while_waiting import ExitWhileWaiting
from flows.engine.foundation import first_positions, fresh, lay_foundation, settings_of_store
from flows.engine.ledger_step import LedgerLogic
from flows.engine.place import ALONE, Place, place_of
from flows.engine.saved_step import Saved
from flows.engine.saves import Saves
from flows.engine.sinks import LinesLogic, LinesSink, RedisLogic, RedisSink
from flows.engine.source import PixelSource, StopSignal
from flows.engine.start import (
    FileOutput,
    kafka_input,
    preflight,
    publish_methodology,
    serve_metrics,
    store_methodology,
)
from flows.engine.steps import (
    AttributionLogic,
    ClientsLogic,
    CreditsLogic,
    HouseholdsLogic,
    PlaysLogic,
    RowsLogic,
)
from flows.engine.trace import Trace

__all__ = [
    "ALONE",
    "AttributionLogic",
    "ClientsLogic",
    "Cluster",
    "CommitSink",
    "CreditsLogic",
    "ExitWhileWaiting",
    "FileOutput",
    "HouseholdsLogic",
    "LedgerLogic",
    "LinesLogic",
    "LinesSink",
    "PixelSource",
    "Place",
    "PlaysLogic",
    "RedisLogic",
    "RedisSink",
    "RowsLogic",
    "Saved",
    "Saves",
    "Step",
    "StopSignal",
    "Trace",
    "deal",
    "end_with_supervisor",
    "execute",
    "first_positions",
    "fresh",
    "kafka_input",
    "lay_foundation",
    "members",
    "place_of",
    "preflight",
    "publish_methodology",
    "serve_metrics",
    "settings_of_store",
    "store_methodology",
]
