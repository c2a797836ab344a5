"""The command line: `otel-sidecar [COMMAND]`; without a command it runs, with otelcol's flags.

May import: everything, but only inside a command: `--help`, `--version` and `health` load no heavy library.
Never here: the work itself.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

import click

from collector import __version__

EX_CONFIG = 78
COMMANDS = {
    "run": ("collector.cli.run:run", "Run the collector (also without any command)."),
    "validate": ("collector.cli.configuration:validate", "Check a configuration; every problem with its place."),
    "print-config": ("collector.cli.configuration:print_config", "Print the merged configuration, secrets masked."),
    "components": ("collector.cli.configuration:components", "List receivers, processors, exporters and extensions."),
    "health": ("collector.cli.health:health", "Ask a running sidecar whether it is well."),
    "send": ("collector.cli.send:send", "Send one sample LLM conversation over OTLP/HTTP."),
    "version": ("collector.cli:version", "Print the version."),
}
_BOOLEAN = re.compile(r"--([a-z][a-z-]*)=(true|false)")


class Command(click.Command):
    """A command that also takes `--flag=true` and `--flag=false`, as the OpenTelemetry Operator writes them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {name: p for p in self.params if isinstance(p, click.Option) and p.is_flag for name in p.opts}
        out = []
        for arg in args:
            found = _BOOLEAN.fullmatch(arg)
            option = flags.get(f"--{found[1]}") if found else None
            if found is None or option is None:
                out.append(arg)
            elif found[2] == "true":
                out.append(f"--{found[1]}")
            elif option.secondary_opts:
                out.append(option.secondary_opts[0])
        return super().parse_args(ctx, out)


class Lazy(click.Group):
    """Imports a command's module when it is used; the first argument that is no command means `run`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h", "--version", "-v")):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            hint = f"Did you mean '{near[0]}'?" if near else "A configuration file goes after --config."
            raise click.UsageError(f"{error.message} {hint}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-v", "--version", prog_name="otel-sidecar")
def main() -> None:
    """An OpenTelemetry collector that runs next to each container. Without a command it runs: see `run --help`.

    Exit codes: 0 ok, 1 a check failed, 2 wrong usage, 78 bad configuration.
    """


@click.command(cls=Command)
def version() -> None:
    """Print the version."""
    click.echo(f"otel-sidecar {__version__}")


def sourced(function: Any) -> Any:
    """The options that name a configuration, for `run`, `validate` and `print-config`."""
    for option in (
        click.option("--components", "folders", multiple=True, metavar="DIR", help="Folder with own components; repeatable."),
        click.option("--relax-unset-env", is_flag=True, help="An unset ${env:X} reads as null, as in otelcol, not as an error."),
        click.option("--dev", is_flag=True, help="The built-in development configuration: all in memory, loopback only."),
        click.option("--feature-gates", multiple=True, metavar="GATES", help="Accepted, without effect."),
        click.option("--set", "sets", multiple=True, metavar="A.B=V", help="Set one value, over all files; repeatable."),
        click.option(
            "--config", "sources", multiple=True, metavar="SOURCE", help="PATH, file:PATH, env:NAME or yaml:TEXT; repeatable."
        ),
    ):
        function = option(function)
    return function
