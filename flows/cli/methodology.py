"""`audiopixel methodology`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.app import command
from flows.errors import UNREADABLE, AudiopixelError, UsageError
from flows.shown import LINE, shown

if TYPE_CHECKING:
    from flows.methodology import Methodology
    from flows.settings import Settings


@command
def methodology(
    subject: Annotated[
        str, typer.Argument(metavar="METRIC|PLACEMENT", help="All metrics by default.", show_default=False)
    ] = "",
    by_hash: Annotated[
        str,
        typer.Option(
            "--hash",
            metavar="HASH",
            help="Instead: the text of an earlier hash, from Kafka.",
            show_default=False,
        ),
    ] = "",
    local: Annotated[
        bool, typer.Option("--local", help="Instead: by the settings here, whatever the flow counts by.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Describe how a published number is counted, by the settings of the flow that counts it.

    The flow builds the description from the metrics' definitions and its settings. The hash of the
    description stands in meta, in every final minute, and in the topic of AUDIOPIXEL_KAFKA_METHODOLOGY_TOPIC
    as the key of the text. The text is read from Redis. --hash finds an earlier text in the topic. --local
    describes the settings of this environment, which may differ from the flow's.

    For a placement, each number of its flight is printed with its description.
    """
    from flows.methodology import methodology as described
    from flows.settings import load

    settings = load()
    if by_hash and (subject or local):
        raise UsageError("--hash takes no metric or placement, and not --local")
    if by_hash:
        _show_earlier(settings, by_hash, as_json)
        return
    methodology = described(settings) if local else _read_methodology(settings)
    whose = "by the settings here (--local)" if local else f"by the flow of {settings.namespace}"
    if as_json and not subject:
        typer.echo(json.dumps(methodology._asdict(), indent=2))
        return
    if not subject:
        _show_all(methodology._asdict(), whose)
        return
    sentences = methodology.sentences_of(subject)
    if sentences is None:
        _show_placement(settings, methodology, subject, whose)
        return
    if as_json:
        typer.echo(json.dumps({"hash": methodology.hash, "metric": subject, **sentences}, indent=2))
        return
    typer.echo(f"{shown(subject)}, methodology {shown(methodology.hash)}, {whose}")
    _show_sentences(sentences)
    _show_sentences(methodology.rules)


def _show_sentences(sentences: Mapping[str, str]) -> None:
    for name, sentence in sentences.items():
        typer.echo(f"  {shown(name.replace('_', ' '))}: {shown(sentence, LINE)}")


def _show_all(described: Mapping[str, Any], whose: str = "") -> None:
    by = f", {whose}" if whose else ""
    typer.echo(f"methodology {shown(described['hash'])} of audiopixel {shown(described['version'])}{by}")
    _show_sentences(described["rules"])
    for metric, sentences in described["metrics"].items():
        typer.echo(shown(metric))
        _show_sentences(sentences)


def _read_methodology(settings: Settings) -> Methodology:
    """The description in Redis of the numbers that the flow publishes.

    Raises:
        AudiopixelError: no flow has written, or the description is missing or damaged.
        ConnectError: Redis does not serve.
    """
    import msgspec

    from connectors.redis import connect, read_rows
    from flows.methodology import Methodology
    from flows.model.redis_keys import methodology_key

    namespace = settings.namespace
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    (meta,) = read_rows(client, [f"{namespace}:meta"], ["methodology"])
    named = meta.get("methodology", "")
    (row,) = read_rows(client, [methodology_key(namespace, named)], ["text"])
    client.close()
    if not named:
        raise AudiopixelError(
            f"no flow has written to {namespace}:meta: set AUDIOPIXEL_REDIS_URL and AUDIOPIXEL_NAMESPACE as "
            "the flow has them; --local describes the settings here"
        )
    if "text" not in row:
        raise AudiopixelError(
            f"Redis does not have the text of the flow's methodology {shown(named)}: audiopixel methodology "
            f"--hash {shown(named)} reads it from Kafka; --local describes the settings here"
        )
    try:
        text = msgspec.json.decode(row["text"], type=dict[str, Any])
        return msgspec.convert([text.get(name) for name in Methodology._fields], Methodology)
    except UNREADABLE as error:
        raise AudiopixelError(
            f"{methodology_key(namespace, shown(named))} in Redis is damaged ({shown(str(error))}): "
            f"audiopixel methodology --hash {shown(named)} reads it from Kafka"
        ) from None


def _show_placement(settings: Settings, methodology: Methodology, placement: str, whose: str) -> None:
    from connectors.redis import connect, read_rows
    from flows.model.redis_keys import row_key
    from flows.settings import nearest

    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    keys = [row_key(settings.namespace, "placement", placement), f"{settings.namespace}:meta"]
    row, meta = read_rows(client, keys)
    client.close()
    if not row:
        near = nearest(placement, methodology.metrics)
        raise AudiopixelError(f"{shown(placement)!r} is no metric, and no placement that has a row{near}")
    typer.echo(f"placement {shown(placement)}, methodology {shown(methodology.hash)}, {whose}")
    counted_by = meta.get("methodology", "")
    if counted_by != methodology.hash:
        typer.echo(f"  the flow counts by {shown(counted_by) or 'an unknown one'}: leave --local out for it")
    _show_sentences(methodology.rules)
    for field, value in row.items():
        window, _, metric = field.partition(".")
        if metric in methodology.metrics and window == "flight":
            typer.echo(f"flight.{shown(metric)} = {shown(value)}")
            _show_sentences(methodology.metrics[metric])


def _show_earlier(settings: Settings, by_hash: str, as_json: bool) -> None:
    import msgspec

    from connectors.kafka import whole
    from flows.settings import kafka_options

    topic = settings.kafka_methodology_topic
    text_bytes = None
    for change in whole(settings.kafka_brokers, topic, kafka_options(settings)):
        if change.key == by_hash.encode():
            text_bytes = change.value
    if text_bytes is None:
        raise AudiopixelError(
            f"{shown(topic)} has no methodology {shown(by_hash)}: is it the topic of the flow that counted?"
        )
    try:
        text: dict[str, Any] = msgspec.json.decode(text_bytes, type=dict[str, Any])
        if as_json or text.get("part") == "collector":
            typer.echo(json.dumps(text, indent=2))
        else:
            _show_all(text)
    except (msgspec.MsgspecError, KeyError, AttributeError, TypeError) as error:
        raise AudiopixelError(f"the message of {shown(by_hash)} is no methodology: {error}") from None
