"""`python -m dashboards`: make the generated files, check that they are current, push to a Grafana; files for
one machine."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def build() -> None:
    """Write the rules, Alertmanager's configuration and the dashboards to dashboards/generated."""
    from dashboards.build import write

    for name in write():
        typer.echo(f"wrote {name}")


@app.command()
def check() -> None:
    """Exit with 1 if a generated file is not what its Python makes."""
    from dashboards.build import stale

    names = stale()
    if names:
        typer.echo(f"not current: {', '.join(names)}; run python -m dashboards build", err=True)
        raise typer.Exit(1)


@app.command()
def local(
    directory: Annotated[Path, typer.Argument(help="Where to write the three files.")],
    flow: Annotated[int, typer.Option(help="Port of the flow's /metrics.")] = 9464,
    exporter: Annotated[int, typer.Option(help="Port of the exporter.")] = 9480,
    alertmanager: Annotated[int, typer.Option(help="Port of Alertmanager.")] = 9093,
    sustained: Annotated[int, typer.Option(help="Seconds a delivery state must hold to be told.")] = 600,
) -> None:
    """Write prometheus.yml, rules.yml and alertmanager.yml for programs on this machine's loopback."""
    from dashboards.local import files

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        typer.echo(f"dashboards: {directory}: cannot be made: {error.strerror}", err=True)
        raise typer.Exit(1) from None
    for name, text in files(flow, exporter, alertmanager, timedelta(seconds=sustained)).items():
        (directory / name).write_text(text)


@app.command()
def push(
    url: Annotated[str, typer.Option(envvar="GRAFANA_URL", help="Grafana's root.")] = "http://127.0.0.1:3000",
    token: Annotated[
        str,
        typer.Option(envvar="GRAFANA_TOKEN", help="Of a service account that may edit.", show_default=False),
    ] = "",
) -> None:
    """Create or replace the three dashboards in a Grafana, in a folder of their own."""
    from dashboards.push import PushError
    from dashboards.push import push as send

    if not token:
        typer.echo("set GRAFANA_TOKEN to the token of a service account that may edit", err=True)
        raise typer.Exit(1)
    try:
        for address in send(url, token):
            typer.echo(address)
    except PushError as error:
        typer.echo(f"dashboards: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
