"""`python -m dashboards` writes the generated files, checks that they are current, pushes them to a Grafana,
and writes files for one machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from dashboards.rules import Limits
from dashboards.site import GENERATED, Site

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Docs = Annotated[
    str | None,
    typer.Option(
        "--docs-url",
        help="Address of the documents that alerts and panels link to.",
        show_default="AUDIOPIXEL_DOCS_URL",
    ),
]
Grafana = Annotated[
    str, typer.Option("--dashboard-url", help="Root of the Grafana that alerts link to.", show_default=False)
]
Under = Annotated[float | None, typer.Option(help="AUDIOPIXEL_UNDER of the flow.", show_default="as set")]
Over = Annotated[float | None, typer.Option(help="AUDIOPIXEL_OVER of the flow.", show_default="as set")]


def _site(docs: str | None, grafana: str, under: float | None, over: float | None) -> Site:
    """The site by the options of a command, else by the environment and audiopixel.toml."""
    if docs is None or under is None or over is None:
        from flows.errors import SettingsError
        from flows.settings import load

        try:
            settings = load()
        except SettingsError as error:
            typer.echo(f"dashboards: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        under = settings.under if under is None else under
        over = settings.over if over is None else over
        docs = (settings.docs_url or "") if docs is None else docs
    return Site(docs, grafana, Limits(under, over))


@contextmanager
def _grafana() -> Iterator[None]:
    """A context for imports of Grafana's packages. A missing package ends the command with one line and code
    1.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package.startswith("grafana_"):
            raise
        typer.echo(f"dashboards: {package} is not installed: pip install 'audiopixel[dashboards]'", err=True)
        raise typer.Exit(1) from None


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """A context for writing to a directory. A file that cannot be written ends the command with one line and
    code 1.
    """
    try:
        yield
    except OSError as error:
        message = f"{error.filename or directory}: cannot be written: {error.strerror}"
        typer.echo(f"dashboards: {message}", err=True)
        raise typer.Exit(1) from None


@app.command()
def build(
    to: Annotated[Path, typer.Option(help="Directory for the generated files.")] = GENERATED,
    docs: Docs = None,
    grafana: Grafana = "",
    under: Under = None,
    over: Over = None,
) -> None:
    """Write the rules, Alertmanager's configuration and the dashboards."""
    with _grafana():
        from dashboards.build import write

    site = _site(docs, grafana, under, over)
    with _writing(to):
        names = write(to, site)
    for name in names:
        typer.echo(f"wrote {name}")


@app.command()
def check() -> None:
    """Exit with 1 if a generated file is not what its Python makes."""
    with _grafana():
        from dashboards.build import stale

    names = stale()
    if names:
        typer.echo(f"not current: {', '.join(names)}; run python -m dashboards build", err=True)
        raise typer.Exit(1)


@app.command()
def local(
    directory: Annotated[Path, typer.Argument(help="Directory for the three files.")],
    flow: Annotated[int, typer.Option(help="Port of the flow's /metrics.")] = 9464,
    exporter: Annotated[int, typer.Option(help="Port of the exporter.")] = 9480,
    alertmanager: Annotated[int, typer.Option(help="Port of Alertmanager.")] = 9093,
    sustained: Annotated[int, typer.Option(help="Seconds a delivery state must hold to fire.")] = 0,
    collector: Annotated[int, typer.Option(help="Port of a collector's /metrics; 0: none.")] = 0,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with a read token that may `metrics`: NAME.SECRET.", show_default=False),
    ] = None,
    docs: Docs = None,
    grafana: Grafana = "",
    under: Under = None,
    over: Over = None,
) -> None:
    """Write prometheus.yml, rules.yml and alertmanager.yml for programs on this machine's loopback."""
    from dashboards.local import files

    site = replace(_site(docs, grafana, under, over), sustained=timedelta(seconds=sustained))
    texts = files(flow, exporter, alertmanager, site, collector, token_file)
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (directory / name).write_text(text)


@app.command()
def push(
    url: Annotated[str, typer.Option(envvar="GRAFANA_URL", help="Grafana's root.")] = "http://127.0.0.1:3000",
    token: Annotated[
        str,
        typer.Option(
            envvar="GRAFANA_TOKEN", help="Token of a service account that may edit.", show_default=False
        ),
    ] = "",
    directory: Annotated[
        Path, typer.Option("--from", help="Directory to which `build --to` wrote them.")
    ] = GENERATED,
) -> None:
    """Create or replace the dashboards in a Grafana, in a folder of their own."""
    with _grafana():
        from dashboards.push import PushError
        from dashboards.push import push as send

    if not token:
        typer.echo("set GRAFANA_TOKEN to the token of a service account that may edit", err=True)
        raise typer.Exit(1)
    try:
        for address in send(url, token, directory):
            typer.echo(address)
    except PushError as error:
        typer.echo(f"dashboards: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
