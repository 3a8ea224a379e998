"""`python -m dashboards`: make the generated files, check that they are current, push to a Grafana."""

from __future__ import annotations

from typing import Annotated

import typer

from dashboards.build import stale, write

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def build() -> None:
    """Write the rules, Alertmanager's configuration and the dashboards to dashboards/generated."""
    for name in write():
        typer.echo(f"wrote {name}")


@app.command()
def check() -> None:
    """Exit with 1 if a generated file is not what its Python makes."""
    names = stale()
    if names:
        typer.echo(f"not current: {', '.join(names)}; run python -m dashboards build", err=True)
        raise typer.Exit(1)


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
