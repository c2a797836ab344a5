"""A small page that shows what arrives: traces with model, tokens and cost, kept and dropped counts, spend by model, queues.

Every number on the page is also JSON under `/api/v1/`. It shows what the exporter `peek` keeps, that is redacted data.
Loopback only, unless a token is set; telemetry is hostile text and is never put into HTML.

Example:
    endpoint: 127.0.0.1:55679
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from importlib.resources import files
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import Field, model_validator

from collector.component import Extension, Settings
from collector.fields import Config, Secret

if TYPE_CHECKING:
    from aiohttp import web

_COOKIE = "otel_sidecar_console"
_ASSETS = {
    "/": ("page.html", "text/html"),
    "/console.js": ("console.js", "text/javascript"),
    "/console.css": ("console.css", "text/css"),
    "/console.svg": ("console.svg", "image/svg+xml"),
}
_POLICY = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"


@runtime_checkable
class Kept(Protocol):
    """An exporter that keeps what it was given, such as `peek`."""

    def traces(self) -> list[dict[str, Any]]: ...
    def trace(self, trace_id: str) -> dict[str, Any] | None: ...
    def logs(self) -> list[dict[str, Any]]: ...


def loopback(host: str) -> bool:
    """True for an address that only this machine can reach."""
    name = host.strip("[]")
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


class ConsoleConfig(Config):
    """Where the page is."""

    endpoint: str = "127.0.0.1:55679"
    """Address of the page."""
    token: Secret = Secret("")
    """Asked for as bearer token or `?token=`; required on an address that other machines can reach."""
    allowed_hosts: list[str] = Field(default_factory=list)
    """Host names beside loopback under which the page may be opened."""

    @model_validator(mode="after")
    def _guarded(self) -> ConsoleConfig:
        host, _, port = self.endpoint.rpartition(":")
        if not port.isdigit():
            raise ValueError("endpoint needs a port, for example 127.0.0.1:55679")
        if not loopback(host or "0.0.0.0") and not self.token.get_secret_value():  # noqa: S104
            raise ValueError("an endpoint that other machines can reach needs a token")
        return self


class Console(Extension):
    """Serves the page, its JSON, and `POST /-/reload`."""

    Config = ConsoleConfig

    def __init__(self, config: Any, settings: Settings) -> None:
        super().__init__(config, settings)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        from aiohttp import web

        if self._runner is not None:
            return

        @web.middleware
        async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=1024)
        for path in _ASSETS:
            app.router.add_get(path, self._asset)
        app.router.add_get("/api/v1/overview", self._json(self.overview))
        app.router.add_get("/api/v1/status", self._json(self.settings.host.status))
        app.router.add_get("/api/v1/spend", self._json(self.spend))
        app.router.add_get("/api/v1/traces", self._json(lambda: {"traces": [t for kept in self._kept() for t in kept.traces()]}))
        app.router.add_get("/api/v1/traces/{trace_id}", self._trace)
        app.router.add_get("/api/v1/logs", self._json(lambda: {"logs": [r for kept in self._kept() for r in kept.logs()]}))
        app.router.add_post("/-/reload", self._reload)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        host, _, port = self.config.endpoint.rpartition(":")
        try:
            await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    # ---- what is shown --------------------------------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """All that the page shows at a glance."""
        status = self.settings.host.status()
        traces = [t for kept in self._kept() for t in kept.traces()]
        return {
            "schema": "otel-sidecar/overview/v1",
            "state": status.get("state"),
            "version": status.get("version"),
            "last_reload_error": status.get("last_reload_error", ""),
            "uptime_seconds": status.get("uptime_seconds"),
            "memory": status.get("memory", {}),
            "pipelines": status.get("pipelines", {}),
            "exporters": status.get("exporters", {}),
            "accounting": status.get("accounting", {}),
            "endpoints": self._endpoints(),
            "masked": self._masked(),
            "spend": self.spend(),
            "keeps": bool(self._kept()),
            "traces": traces[:50],
            "logs": [r for kept in self._kept() for r in kept.logs()][:50],
        }

    def spend(self) -> dict[str, Any]:
        """Calls, tokens and US$ by model since the start, dearest first; what could not be priced is listed beside it."""
        rows: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for family, field in (("llm_requests", "calls"), ("llm_tokens", "tokens"), ("llm_cost_usd", "cost_usd")):
            for labels, value in self._series(family):
                rows[labels.get("model", "unknown")][field] += value
        unpriced = [{**labels, "calls": value} for labels, value in self._series("llm_cost_unpriced") if value]
        models: list[dict[str, Any]] = [
            {"model": model, "calls": int(row["calls"]), "tokens": int(row["tokens"]), "cost_usd": row["cost_usd"]}
            for model, row in rows.items()
        ]
        models.sort(key=lambda row: (-row["cost_usd"], row["model"]))
        return {
            "schema": "otel-sidecar/spend/v1",
            "total_calls": sum(row["calls"] for row in models),
            "total_tokens": sum(row["tokens"] for row in models),
            "total_cost_usd": sum(row["cost_usd"] for row in models),
            "models": models,
            "unpriced": unpriced,
        }

    def _series(self, name: str) -> list[tuple[dict[str, str], float]]:
        found = self.settings.meters.find(name)
        return (
            [] if found is None else [(dict(zip(found.labels, labels, strict=True)), v) for labels, v in found.series().items()]
        )

    def _masked(self) -> dict[str, int]:
        out: dict[str, int] = defaultdict(int)
        for labels, value in self._series("pii_detections"):
            out[labels.get("pii_type", "")] += int(value)
        return dict(sorted(out.items()))

    def _endpoints(self) -> dict[str, str]:
        return {
            name: f"http://{exporter.config.endpoint}/metrics"
            for name, exporter in self.settings.host.exporters.items()
            if name.split("/")[0] == "prometheus" and hasattr(exporter.config, "endpoint")
        }

    def _kept(self) -> list[Kept]:
        return [exporter for exporter in self.settings.host.exporters.values() if isinstance(exporter, Kept)]

    # ---- answers --------------------------------------------------------------------------------------------------

    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        from aiohttp import web

        host = request.host.rpartition(":")[0] if ":" in request.host.rpartition("]")[2] else request.host
        if not loopback(host) and host not in self.config.allowed_hosts and not self._token():
            raise web.HTTPForbidden(text="unknown host name")  # DNS rebinding: a page elsewhere must not read this one
        origin = request.headers.get("Origin")
        if request.method == "POST" and origin is not None and origin.partition("://")[2] != request.host:
            raise web.HTTPForbidden(text="cross-origin request")
        if self._token() and (refused := self._unauthorized(request)) is not None:
            return refused
        response: web.StreamResponse = await handler(request)
        response.headers.update({
            "Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        })  # fmt: skip
        return response

    def _token(self) -> str:
        return str(self.config.token.get_secret_value())

    def _unauthorized(self, request: web.Request) -> web.Response | None:
        from aiohttp import web

        if self._equal(request.query.get("token", "")):
            moved = web.Response(status=303, headers={"Location": request.path})
            moved.set_cookie(_COOKIE, self._token(), httponly=True, samesite="Strict")
            return moved
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._equal(given) or self._equal(request.cookies.get(_COOKIE, "")):
            return None
        return web.Response(status=401, text="token required", headers={"WWW-Authenticate": "Bearer"})

    def _equal(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="surrogateescape"), self._token().encode())

    def _json(self, make: Any) -> Any:
        async def answer(request: web.Request) -> web.Response:
            return _document(make())

        return answer

    async def _trace(self, request: web.Request) -> web.Response:
        for kept in self._kept():
            if (found := kept.trace(request.match_info["trace_id"])) is not None:
                return _document(found)
        return _document({"error": "this trace is not kept"}, status=404)

    async def _asset(self, request: web.Request) -> web.Response:
        from aiohttp import web

        name, kind = _ASSETS[request.path]
        return web.Response(body=files(__name__).joinpath(name).read_bytes(), content_type=kind, charset="utf-8")

    async def _reload(self, request: web.Request) -> web.Response:
        reload = getattr(self.settings.host, "reload", None)
        if reload is None:
            return _document({"error": "this service cannot reload"}, status=501)
        reload()
        return _document({"ok": True, "see": "/api/v1/status"}, status=202)


def _document(value: dict[str, Any], status: int = 200) -> web.Response:
    import orjson
    from aiohttp import web

    return web.Response(body=orjson.dumps(value, default=str), status=status, content_type="application/json")
