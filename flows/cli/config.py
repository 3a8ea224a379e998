"""`audiopixel config`."""

from __future__ import annotations

from flows.cli.app import command


@command
def config() -> None:
    """Show every setting: its value, where that comes from, what it takes and what it means. Secrets are not
    shown. The number of shards is the recovery store's, where none is set.

    Set one by its name in the environment, or in audiopixel.toml by the rest of the name in lower case
    (`flush_interval = "PT0.5S"`). {text: text} and […] are JSON in the environment, a table or an array in
    the file. Durations: PT10M, 00:10:00, or seconds. AUDIOPIXEL_CONFIG names another file.
    """
    from flows.engine import placed
    from flows.errors import StateError
    from flows.settings import load
    from flows.settings.show import show

    settings = load()
    try:
        shards = placed(settings).shards
    except StateError:  # it cannot be read, which whoever starts a flow is told
        shards = settings.shards
    kept = {"shards": "the recovery store"} if shards != settings.shards else {}
    show(settings.model_copy(update={"shards": shards}), kept)
