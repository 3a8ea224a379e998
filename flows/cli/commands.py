"""All commands, in the order of the help."""

from __future__ import annotations

# isort: off
from flows.cli import run as _run  # noqa: F401  (each registers itself)
from flows.cli import collect as _collect  # noqa: F401  (each registers itself)
from flows.cli import release as _release  # noqa: F401  (each registers itself)
from flows.cli import sources as _sources  # noqa: F401  (each registers itself)
from flows.cli import tag as _tag  # noqa: F401  (each registers itself)
from flows.cli import archive as _archive  # noqa: F401  (each registers itself)
from flows.cli import recompute as _recompute  # noqa: F401  (each registers itself)
from flows.cli import replay as _replay  # noqa: F401  (each registers itself)
from flows.cli import demo as _demo  # noqa: F401  (each registers itself)
from flows.cli import compile as _compile  # noqa: F401  (each registers itself)
from flows.cli import simulate as _simulate  # noqa: F401  (each registers itself)
from flows.cli import reconcile as _reconcile  # noqa: F401  (each registers itself)
from flows.cli import verify as _verify  # noqa: F401  (each registers itself)
from flows.cli import check as _check  # noqa: F401  (each registers itself)
from flows.cli import rejected as _rejected  # noqa: F401  (each registers itself)
from flows.cli import discrepancy as _discrepancy  # noqa: F401  (each registers itself)
from flows.cli import doctor as _doctor  # noqa: F401  (each registers itself)
from flows.cli import state as _state  # noqa: F401  (each registers itself)
from flows.cli import exporter as _exporter  # noqa: F401  (each registers itself)
from flows.cli import export as _export  # noqa: F401  (each registers itself)
from flows.cli import top as _top  # noqa: F401  (each registers itself)
from flows.cli import explain as _explain  # noqa: F401  (each registers itself)
from flows.cli import methodology as _methodology  # noqa: F401  (each registers itself)
from flows.cli import overlap as _overlap  # noqa: F401  (each registers itself)
from flows.cli import forget as _forget  # noqa: F401  (each registers itself)
from flows.cli import plans as _plans  # noqa: F401  (each registers itself)
from flows.cli import config as _config  # noqa: F401  (each registers itself)
from flows.cli.app import app
# isort: on

__all__ = ["app"]
