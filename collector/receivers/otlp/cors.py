"""CORS as otelcol has it (confighttp, rs/cors): wildcards in origins, credentials always allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from collector.receivers.otlp.options import Cors

_SAFE = ("Accept", "Content-Type", "X-Requested-With")


class CorsPolicy:
    """Answers what a browser asks before and with a request from another origin."""

    def __init__(self, config: Cors) -> None:
        self._config = config
        self._origins = [re.compile(".*".join(map(re.escape, origin.lower().split("*")))) for origin in config.allowed_origins]

    def headers(self, request: Mapping[str, str]) -> dict[str, str]:
        """For every answer: empty unless the origin is allowed."""
        origin = request.get("Origin", "")
        if not origin or not any(pattern.fullmatch(origin.lower()) for pattern in self._origins):
            return {}
        found = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}
        if self._config.exposed_headers:
            found["Access-Control-Expose-Headers"] = ", ".join(self._config.exposed_headers)
        return found

    def preflight(self, request: Mapping[str, str]) -> dict[str, str] | None:
        """Answer to a preflight request; None when this is none or the origin, method or a header is not allowed."""
        found = self.headers(request)
        wanted = [name.strip() for name in request.get("Access-Control-Request-Headers", "").split(",") if name.strip()]
        if not found or request.get("Access-Control-Request-Method", "") != "POST" or not self._allow(wanted):
            return None
        found |= {"Access-Control-Allow-Methods": "POST", "Vary": "Origin, Access-Control-Request-Headers"}
        if wanted:
            found["Access-Control-Allow-Headers"] = ", ".join(wanted)
        if self._config.max_age:
            found["Access-Control-Max-Age"] = str(self._config.max_age)
        return found

    def _allow(self, wanted: list[str]) -> bool:
        allowed = {name.lower() for name in (*_SAFE, *self._config.allowed_headers)}
        return "*" in allowed or all(name.lower() in allowed for name in wanted)
