"""`otel-sidecar health`: one HTTP request over a bare socket, so that a health check every few seconds costs nothing."""

from __future__ import annotations

import os
import re
import socket

import click

from collector.cli import Command

_UPTIME = re.compile(r'"uptime"\s*:\s*"([^"]{1,40})"')


@click.command(cls=Command)
@click.option("--endpoint", metavar="HOST:PORT", help="Default OTEL_SIDECAR_HEALTH_ENDPOINT or 127.0.0.1:13133.")
@click.option("--ready", is_flag=True, help="Ask whether data is accepted (/readyz).")
@click.option("--live", is_flag=True, help="Ask whether the process works (/livez).")
@click.option("--timeout", default="2s", show_default=True, metavar="DURATION", help="Longest wait.")
@click.pass_context
def health(ctx: click.Context, endpoint: str | None, ready: bool, live: bool, timeout: str) -> None:
    """Exit 0 when the sidecar is well, 1 when it is not or does not answer. For HEALTHCHECK and probes."""
    endpoint = endpoint or os.environ.get("OTEL_SIDECAR_HEALTH_ENDPOINT") or "127.0.0.1:13133"
    wait = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m)?", timeout)
    host, colon, port = re.sub(r"^https?://|/.*$", "", endpoint).rpartition(":")
    if wait is None or not colon or not port.isdigit():
        raise click.UsageError("write --endpoint HOST:PORT and --timeout 2s")
    limit = float(wait[1]) * {"ms": 0.001, "m": 60.0}.get(wait[2], 1.0)
    what, path = ("ready", "/readyz") if ready else ("live", "/livez") if live else ("up", "/")
    try:
        status, body = ask(host.strip("[]") or "127.0.0.1", int(port), path, limit)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = " - is health_check in service::extensions, at this address?" if isinstance(error, ConnectionRefusedError) else ""
        click.echo(f"failed {what}: {endpoint}: {reason}{hint}", err=True)
        ctx.exit(1)
    if status != 200:
        click.echo(f"failed {what}: HTTP {status} {body.strip()[:256]}".rstrip(), err=True)
        ctx.exit(1)
    uptime = _UPTIME.search(body)
    click.echo(f"ok {what}{f' {uptime[1]}' if uptime else ''}")


def ask(host: str, port: int, path: str, timeout: float) -> tuple[int, str]:
    """Status and the first 64 KiB of the answer. Raises OSError, or ValueError for an answer that is not HTTP."""
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
    with socket.create_connection((host, port), timeout) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while len(data) < 1 << 16 and (chunk := connection.recv(1 << 14)):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1\.[01] ([0-9]{3})", head)
    if found is None:
        raise ValueError("the answer is not HTTP")
    return int(found[1]), body.decode(errors="replace")
