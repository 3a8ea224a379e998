"""Help of the commands: the purpose, examples to copy, then the options.

Typer's own help names types and bounds (`<int range> [x>=1]`) before it shows a single call.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from flows.model.catalogue.exports import EXPORTS
from flows.shown import LINE, shown

START, PREPARE, RUN, LOOK, PROVE, PRIVACY = PANELS = (
    "Start",
    "Prepare pixels and plans",
    "Run",
    "Look, and ask why",
    "Prove that the numbers are right",
    "Privacy",
)
GUIDE: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "demo": (START, ("demo", "demo --seconds 30")),
    "run": (RUN, ("run --processes 4 --restarts 3", "run --member 0 --addresses 'one:7000;two:7000'")),
    "collect": (RUN, ("collect", "collect --processes 4")),
    "replay": (
        PROVE,
        (
            "replay monday.ndjson.gz --out numbers",
            "replay monday.ndjson.gz --recompute",
            "replay archive:/data/archive --out numbers",
        ),
    ),
    "archive": (
        RUN,
        (
            "archive --to /data/archive",
            "archive --to s3://bucket/audiopixel",
            "archive check /data/archive",
            "archive parquet /data/archive --to /data/hours",
        ),
    ),
    "recompute": (
        RUN,
        (
            "recompute --from archive:/data/archive --as august",
            "recompute diff august",
            "recompute switch august",
        ),
    ),
    "compile": (START, ("compile", "compile --redis redis://127.0.0.1:6379/0")),
    "exporter": (RUN, ("exporter --host 0.0.0.0 --port 9480",)),
    "export": (
        RUN,
        tuple(
            f"export {export.name} {arguments}".rstrip()
            for export in EXPORTS
            for arguments, _ in export.examples
            if export.helped
        ),
    ),
    "tag": (
        PREPARE,
        (
            "tag --dialect triton --placement breakfast-uk --campaign spring",
            "tag --check 'https://pixels.example.com/p/triton?e=start&pl=breakfast-uk'",
        ),
    ),
    "sources": (
        PREPARE,
        (
            "sources draft kafka:ad-events --out sources/ads.toml",
            "sources check ads",
            "sources run ads",
            "sources run adserver --out history.ndjson",
        ),
    ),
    "release": (RUN, ("release 9f3c2ab1d4e5f607",)),
    "top": (LOOK, ("top --sort stake", "top --filter under", "top --campaigns --once --all")),
    "explain": (LOOK, ("explain order-1234", "explain -- -1234")),
    "overlap": (LOOK, ("overlap breakfast-uk drivetime-uk", "overlap --campaigns spring autumn")),
    "methodology": (LOOK, ("methodology reach", "methodology breakfast-uk", "methodology --json")),
    "config": (START, ("config", "config --all", "config KAFKA", "config --example")),
    "check": (PREPARE, ("check monday.ndjson.gz --most 20",)),
    "rejected": (
        PROVE,
        (
            "rejected --hours 1",
            "rejected --reason unsigned --sender token/host --resend",
            "rejected --sender source/player --resend",
            "rejected --against theirs.ndjson.gz",
        ),
    ),
    "doctor": (START, ("doctor", "doctor --json")),
    "verify": (PROVE, ("verify", "verify --since 6h")),
    "discrepancy": (PROVE, ("discrepancy theirs.csv", "discrepancy theirs.csv --html report.html")),
    "plans": (
        PREPARE,
        (
            "plans plans.csv",
            "plans plans.csv --to placement-plans",
            "plans plans.csv --delivered theirs.csv --until 2026-11-20T09:00 --out balanced.csv",
        ),
    ),
    "state": (
        PROVE,
        ("state", "state /var/lib/audiopixel --json", "state deal disk-0 disk-1 --members 3 --to dealt"),
    ),
    "simulate": (
        PREPARE,
        (
            "simulate pixels.ndjson --events 10000",
            "simulate kafka --seconds 60",
            "simulate pixels.ndjson --scenario first-day --plans plans.csv --theirs theirs.csv",
        ),
    ),
    "reconcile": (
        PROVE,
        (
            "reconcile monday.ndjson.gz",
            "reconcile monday.ndjson.gz --rejected numbers/rejected.ndjson --minutes numbers/minutes.ndjson",
        ),
    ),
    "forget": (
        PRIVACY,
        (
            "forget 6D92078A-8246-4BA4-AE5B-76104861E7DC --receipt receipt.json",
            "forget --status receipt.json",
            "forget < listeners.txt",
        ),
    ),
}
"""The purpose and the calls of each command."""
LINES: Final[Mapping[str, str]] = {
    "demo": "Show everything at work on this machine, on loopback",
    "config": "Show the settings that are needed, and those that you changed",
    "doctor": "Examine this installation: Kafka, Redis, clocks, disks, the flow",
    "compile": "Compile the kernels ahead, for an image or a first start",
    "tag": "Build a vendor's signed tags for a placement, or check one",
    "check": "Check files of pixels before a flow reads them",
    "plans": "Check a file of plans",
    "simulate": "Make traffic with faults, and a ledger of the truth",
    "sources": "Read topics and files of another shape as pixels",
    "run": "Run the flow: Kafka in, Redis and Prometheus out",
    "collect": "Take pixels over HTTP",
    "exporter": "Serve the live page, the HTTP API and Prometheus",
    "export": "Send what is published to webhooks, Slack, GA4, Parquet …",
    "archive": "Keep the topic's raw messages in files or a bucket",
    "recompute": "Count an archive again next to the live flow, compare, switch",
    "release": "Declare a collector gone, so that the flow stops waiting for it",
    "top": "Watch placements in the terminal, the urgent ones first",
    "explain": "Why was a conversion credited to this placement?",
    "methodology": "How is this number counted?",
    "overlap": "How many listeners did A and B both reach?",
    "verify": "Was anything lost? Recompute the topic of a live flow",
    "reconcile": "Recompute logs, and compare every published field",
    "discrepancy": "Why does another party count otherwise?",
    "rejected": "Which pixels were rejected, whose, and why?",
    "replay": "Run the flow over log files",
    "state": "Verify the saves of a recovery directory",
    "forget": "Erase listeners and households",
}
"""A line for each command, in the list of all commands."""
_MISTAKES: Final = (
    (r"[.?]? ?\(?(?:Did you mean|Possible options:) ([^?)]+)[?)]*$", r" (did you mean \1?)"),
    (r"^Invalid value for '?([^':]+)'?: ", r"\1: "),
    (r"Input should be greater than or equal to ", "takes at least "),
    (r"Input should be less than or equal to ", "takes at most "),
    (r"Input should be a valid integer.*", "takes a whole number"),
    (r"Input should be a valid number.*", "takes a number"),
    (r"Input should be a finite number.*", "takes a finite number"),
    (r"^Option '(.+)' requires an argument", r"\1 takes a value"),
)
"""Patterns of messages of click, typer and pydantic, each with its replacement."""
_FIRST_EXAMPLES: Final = ("demo", "check pixels.ndjson", "top", "config")
_WIDEST_NAME: Final = 34


def _heading(out: Any, name: str) -> None:
    out.write(f"\n{typer.style(name, bold=True)}\n")


def _listed(out: Any, name: str, rows: Sequence[tuple[str, str]]) -> None:
    if rows:
        _heading(out, name)
        out.indent()
        out.write_dl(rows, col_max=_WIDEST_NAME)
        out.dedent()


def _examples(out: Any, examples: Iterable[str]) -> None:
    _heading(out, "Examples")
    for example in examples:  # never wrapped, since they are copied
        out.write(f"  audiopixel {example}\n")


def _described(parameter: Any) -> tuple[str, str]:
    """An argument or option with the values that it takes, and its help with its default."""
    words = str(parameter.help or "")
    if not isinstance(parameter, TyperOption):
        return f"{parameter.metavar or parameter.name.upper()}{'…' if parameter.nargs != 1 else ''}", words
    name = ", ".join(parameter.opts)
    if parameter.is_flag:
        return name, words
    if parameter.show_default and parameter.default is not None:
        words = f"{words} (default: {parameter.default})"
    return f"{name} {parameter.metavar or parameter.name.upper()}", words


# Typer brings its own copy of click, whose types have no name in mypy: hence `Any`.


class Command(TyperCommand):
    """A command whose help shows examples first."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        _paragraphs(formatter, self.help or "")
        _examples(formatter, GUIDE[self.name or ""][1])
        params = [param for param in self.get_params(ctx) if not getattr(param, "hidden", False)]
        arguments = [_described(param) for param in params if not isinstance(param, TyperOption)]
        _listed(formatter, "Arguments", arguments)
        options = [_described(param) for param in params if isinstance(param, TyperOption)]
        _listed(formatter, "Options", options)


class Group(TyperGroup):
    """The commands together, by purpose."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command, and end the process. Wrong arguments make one line, as any other error does."""
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except typer.Abort:
            code = 1
        except Exception as error:
            if not hasattr(error, "format_message"):  # click's and typer's own; both have several
                raise
            typer.echo(f"audiopixel: {shown(_mistake(error), LINE)}", err=True)
            code = getattr(error, "exit_code", 2)
        sys.exit(code)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help: a sentence a command."""
        _paragraphs(formatter, self.help or "")
        _examples(formatter, _FIRST_EXAMPLES)
        for panel in PANELS:
            _listed(
                formatter, panel, [(name, line) for name, line in LINES.items() if GUIDE[name][0] == panel]
            )
        _listed(formatter, "Options", [_described(param) for param in self.get_params(ctx)])
        formatter.write("\naudiopixel COMMAND --help describes one.\n")


def _mistake(error: Any) -> str:
    """The message for wrong arguments: the fault, a similar name, and the command that prints help."""
    mistake = " ".join(str(error.format_message()).split()).rstrip(".")
    for pattern, replacement in _MISTAKES:
        mistake = re.sub(pattern, replacement, mistake)
    context = getattr(error, "ctx", None)
    path = "audiopixel" if context is None else context.command_path
    return f"{mistake[:1].lower()}{mistake[1:]}; see {path} --help"


def _paragraphs(out: Any, text: str) -> None:
    for number, part in enumerate(text.split("\n\n")):
        if number:
            out.write("\n")
        out.write_text(part)
