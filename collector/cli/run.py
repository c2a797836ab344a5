"""`otel-sidecar run`."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread
from typing import Any

import click

from collector.cli import Command, places, sourced


class Seconds(click.ParamType[float]):
    """A duration such as 10s, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from collector.fields import seconds

        try:
            return seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(cls=Command)
@sourced
@click.option("--log-level", type=click.Choice(["debug", "info", "warn", "error"]), help="Over service::telemetry::logs::level.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Own log lines; default text on a terminal, else json.")
@click.option(
    "--drain-timeout", type=Seconds(), default="10s", show_default=True, help="Longest time to send the rest at the end."
)
@click.option("--sample", is_flag=True, help="Send one sample LLM conversation to this sidecar once it is ready (see `send`).")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    sets: tuple[str, ...],
    feature_gates: tuple[str, ...],
    dev: bool,
    relax_unset_env: bool,
    folders: tuple[str, ...],
    sample: bool,
    **logging: Any,
) -> None:
    """Run the collector until SIGTERM; then send what is left. SIGHUP loads the configuration again.

    \b
    otel-sidecar run --dev
    otel-sidecar run --config config.yaml --set exporters.loki.endpoint=http://loki:3100
    """
    places.note_gates(feature_gates)
    chosen = places.sources(sources, dev)
    from collector.errors import ConfigError
    from collector.service.run import RunOptions, main

    options = RunOptions(
        on_ready=_sample if sample else None,
        sources=chosen,
        sets=sets,
        components=tuple(Path(folder) for folder in folders),
        dev=dev,
        relax_unset_env=relax_unset_env,
        **logging,
    )
    try:
        code = main(options)
    except ConfigError as error:
        click.echo(str(error), err=True)
        code = 78
    ctx.exit(code)


def _sample(place: str) -> None:
    host, _, port = place.rpartition(":")
    if not port.isdigit():
        click.echo("sample: not sent, no otlp receiver listens for HTTP on a port", err=True)
        return
    host = "127.0.0.1" if host in ("", "0.0.0.0", "[::]") else host  # noqa: S104 - an address to listen on is none to send to
    Thread(target=send_sample, args=(f"http://{host}:{port}",), daemon=True).start()


def send_sample(endpoint: str, patience: float = 15.0) -> None:
    """Send the sample conversation as soon as the receiver answers, at most `patience` seconds from now."""
    from collector.cli.send import send_one

    deadline = time.monotonic() + patience
    while True:
        results = send_one(endpoint, error=False, timeout=2.0)
        if any(result.status for result in results) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    for result in results:
        click.echo(f"sample: {result.line()}", err=True)
