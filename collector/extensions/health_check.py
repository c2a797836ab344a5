"""Answers health probes over HTTP: liveness, readiness, start-up, and a status page that names what is wrong.

Example:
    endpoint: localhost:13133

`/` as otelcol answers it, but it stays 200 while draining, because the Operator and the Helm chart use it as liveness.
`/livez`, `/readyz`, `/startupz` for Kubernetes, `/status?pipeline=traces&verbose` as otelcol's healthcheckv2.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from collector import fields
from collector.component import Extension, Settings
from collector.fields import Duration, Listen, ServerTLS, listen_address, without_type

if TYPE_CHECKING:
    from aiohttp import web

_CODES = {
    # path: (starting, running, draining, failed), user-experience.md section 5
    "/": (503, 200, 200, 503),
    "/livez": (200, 200, 200, 500),
    "/startupz": (503, 200, 200, 503),
    "/readyz": (503, 200, 503, 503),
    "/status": (503, 200, 503, 500),
}
_STATES = ("starting", "running", "draining", "failed")
_WORDS = {"starting": "StatusStarting", "running": "StatusOK", "draining": "StatusStopping", "failed": "StatusFatalError"}
_RECOVERABLE = "StatusRecoverableError"


class ResponseBody(fields.Config):
    """Texts instead of the JSON of `/`."""

    healthy: str = ""
    """Sent with 200."""
    unhealthy: str = ""
    """Sent with 503."""


class ComponentHealth(fields.Config):
    """Whether a component in trouble makes `/status` answer 500; never `/`, `/livez` or `/readyz`."""

    include_permanent_errors: bool = False
    """Accepted without effect: a request that a backend refused for good says nothing of the next one."""
    include_recoverable_errors: bool = False
    """Answer 500 when a backend has not been reachable for `recovery_duration`."""
    recovery_duration: Duration = 300.0
    """How long a backend may be away."""


class Page(fields.Config):
    """One page of otelcol's healthcheckv2."""

    enabled: bool = True
    """Serve it."""
    path: str = Field("/status", pattern="^/")
    """Its path."""


class Http(fields.Config):
    """otelcol's healthcheckv2 over HTTP."""

    endpoint: Listen = "localhost:13133"
    """Address to listen on."""
    tls: ServerTLS | None = None
    """Serve HTTPS."""
    status: Page = Page()
    """The status page."""

    @model_validator(mode="before")
    @classmethod
    def _later(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("config") in (None, {}, {"enabled": False}):
            value = {key: entry for key, entry in value.items() if key != "config"}
        return without_type(value, "config", "the configuration is not shown here; use print-config")


class HealthCheck(Extension):
    """A small HTTP server beside the pipelines."""

    class Config(fields.Config):
        """Options of otelcol's health_check, both generations."""

        endpoint: Listen = "localhost:13133"
        """Address to listen on."""
        tls: ServerTLS | None = None
        """Serve HTTPS."""
        path: str = Field("/", pattern="^/")
        """Path of the plain health page; `/` also answers every path that nothing else is on."""
        response_body: ResponseBody | None = None
        """Texts instead of the JSON of the plain health page."""
        use_v2: bool = False
        """Take address and status path from `http`."""
        http: Http | None = None
        """otelcol's healthcheckv2 over HTTP."""
        component_health: ComponentHealth = ComponentHealth()
        """When a component in trouble counts as unhealthy."""
        check_collector_pipeline: dict[str, Any] = Field({})
        """Accepted without effect, as in otelcol."""

        @model_validator(mode="before")
        @classmethod
        def _later(cls, value: Any) -> Any:
            without_type(value, "grpc", "gRPC health v1 is served on the otlp receiver's port")
            without_type(value, "cors auth response_headers max_request_body_size include_metadata", "probes need none")
            return without_type(value, "checks readiness", "checks of other services are not built yet")

        def place(self) -> tuple[str, ServerTLS | None]:
            """Where to listen."""
            return (self.http.endpoint, self.http.tls) if self.use_v2 and self.http else (self.endpoint, self.tls)

        def status_path(self) -> str | None:
            """Where the status page is; None when it is switched off."""
            page = self.http.status if self.http else Page()
            return page.path if page.enabled else None

    def __init__(self, config: Any, settings: Settings) -> None:
        super().__init__(config, settings)
        self._runner: web.AppRunner | None = None
        self._born = datetime.now(UTC)
        self._away: dict[str, float] = {}
        self.clock = time.monotonic
        self._since = self.clock()

    async def start(self) -> None:
        """Listen. Raises OSError when the address is taken."""
        from aiohttp import web

        if self._runner is not None:
            return
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        endpoint, tls = self.config.place()
        try:
            await web.TCPSite(runner, *listen_address(endpoint), ssl_context=tls.context() if tls else None).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Close the port."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        from aiohttp import web

        path, state = request.path, self.settings.host.state()
        if path == self.config.status_path():
            code, body = self.status(state, request.query.get("pipeline"), "verbose" in request.query)
            return web.json_response(body, status=code)
        if path in ("/livez", "/readyz", "/startupz") and path != self.config.path:
            code = _code(path, state)
            return web.json_response({"status": "ok" if code == 200 else "not ok", "state": state}, status=code)
        if path != self.config.path and self.config.path != "/":
            raise web.HTTPNotFound
        return self._plain(_code("/", state))

    def _plain(self, code: int) -> web.Response:
        from aiohttp import web

        body = self.config.response_body
        if body is not None:
            return web.Response(text=body.healthy if code == 200 else body.unhealthy, status=code)
        if code != 200:
            down = {"status": "Server not available", "upSince": "0001-01-01T00:00:00Z", "uptime": ""}
            return web.json_response(down, status=code)
        uptime = go_duration(self.clock() - self._since)
        return web.json_response({"status": "Server available", "upSince": _text(self._born), "uptime": uptime})

    def status(self, state: str, pipeline: str | None, verbose: bool) -> tuple[int, dict[str, Any]]:
        """HTTP code and body of the status page, as healthcheckv2; `verbose` adds components and our own figures."""
        shown = self.settings.host.status()
        down = {name: entry for name, entry in shown.get("exporters", {}).items() if entry.get("down")}
        overdue = self._overdue(set(down))
        components = self._components(state, shown, down, overdue)
        if pipeline is not None:
            chosen = components.get(f"pipeline:{pipeline}")
            if chosen is None:
                return 404, {"error": "no such pipeline"}
            involved = set(down) & set(shown["pipelines"][pipeline]["exporters"])
        else:
            involved = set(down)
        code = _code("/status", state)
        if code == 200 and overdue & involved:
            code = 500
        body = self._event(state, bool(involved), not overdue & involved)
        body = {"start_time": _text(self._born), **body}
        if verbose:
            body["components"] = components if pipeline is None else components[f"pipeline:{pipeline}"]["components"]
            body["sidecar"] = shown
        return code, body

    def _overdue(self, down: set[str]) -> set[str]:
        now = self.clock()
        self._away = {name: self._away.get(name, now) for name in down}
        health = self.config.component_health
        if not health.include_recoverable_errors:
            return set()
        return {name for name, since in self._away.items() if now - since >= health.recovery_duration}

    def _components(self, state: str, shown: dict[str, Any], down: dict[str, Any], overdue: set[str]) -> dict[str, Any]:
        out = {}
        for name, entry in shown.get("pipelines", {}).items():
            inner = {}
            for kind in ("receivers", "processors", "exporters"):
                for one in entry.get(kind, ()):
                    away = kind == "exporters" and one in down
                    inner[f"{kind[:-1]}:{one}"] = self._event(state, away, one not in overdue, down.get(one) if away else None)
            away = any(one in down for one in entry.get("exporters", ()))
            healthy = not any(one in overdue for one in entry.get("exporters", ()))
            out[f"pipeline:{name}"] = {**self._event(state, away, healthy), "components": inner}
        return out

    def _event(self, state: str, away: bool, healthy: bool, entry: dict[str, Any] | None = None) -> dict[str, Any]:
        status = _RECOVERABLE if away and state == "running" else _WORDS[state]
        event = {"healthy": healthy and state == "running", "status": status, "status_time": _text(datetime.now(UTC))}
        if entry and entry.get("last_error"):
            event["error"] = entry["last_error"]
        return event


def _code(path: str, state: str) -> int:
    return _CODES[path][_STATES.index(state)]


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def go_duration(seconds: float) -> str:
    """`1h2m3.5s`, as Go prints a duration."""
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text
