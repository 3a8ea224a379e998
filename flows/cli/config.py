"""`audiopixel config`."""

from __future__ import annotations

from flows.cli.app import command


@command
def config() -> None:
    """Show every setting: what is in force, where it comes from, what it means. Secrets are not shown.

    Each is set by its name in the environment, or in audiopixel.toml by the rest of it in lower case
    (`flush_interval = "PT1S"`). Durations: PT10M, 00:10:00, or seconds. Names with texts: JSON in the
    environment, a table in the file. AUDIOPIXEL_CONFIG names another file.
    """
    from flows.settings import load
    from flows.settings.show import show

    show(load())
