"""One OTLP/HTTP exchange: what to post and what the answer means (OTLP specification 1.9, OTLP/HTTP Response)."""

from __future__ import annotations

from collections.abc import Mapping

from collector.component import Settings
from collector.errors import Malformed, Oversized, Permanent, Retryable, SendError
from collector.exporters._aside import aside, prepare
from collector.exporters._http import HttpClient, Reply
from collector.exporters._replies import Notices, excerpt, fix
from collector.model import Payload, Signal
from collector.otlp import answers
from collector.otlp.mapping import to_json

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_INLINE = 128 << 10  # larger requests are turned into JSON in a thread


class OtlpPush:
    """Posts export requests and reads the answers by their own content type."""

    def __init__(self, client: HttpClient, settings: Settings, *, json: bool = False) -> None:
        self._client, self._json = client, json
        self._notices = Notices(settings)
        if json:
            prepare()

    async def send(self, url: str, payload: Payload, headers: Mapping[str, str] | None = None) -> int:
        """Deliver `payload`; returns the rejected items. Raises Retryable, Permanent or Oversized by OTLP's table."""
        body = payload.data
        if self._json:
            try:
                inline = len(body) <= _INLINE
                body = to_json(payload.signal, body) if inline else await aside(to_json, payload.signal, body)
            except Malformed as error:
                raise Permanent(str(error)) from None
        reply = await self._client.post(url, body, JSON if self._json else PROTOBUF, headers)
        if 200 <= reply.status < 300:
            return self._partial(payload.signal, reply)
        raise failure(reply, self._client.secrets)

    def _partial(self, signal: Signal, reply: Reply) -> int:
        return self._notices.rejected(signal, reply.body, json=reply.media == JSON, secrets=self._client.secrets)


def failure(reply: Reply, secrets: tuple[str, ...]) -> SendError:
    """The error of an answer that is no success."""
    said, asked = answers.read_failure(reply.body, json=reply.media == JSON) if reply.media in (JSON, PROTOBUF) else ("", None)
    said = excerpt(said or (b"" if reply.media == PROTOBUF else reply.body), secrets)
    text = f"HTTP {reply.status}: {said}" if said else f"HTTP {reply.status}"
    if reply.status in answers.RETRYABLE_STATUSES:
        return Retryable(text, after=asked if reply.after is None else reply.after)
    if reply.status == 413:
        return Oversized(text)
    if 300 <= reply.status < 400:
        text += " (redirects are not followed: write the final URL as endpoint)"
    return Permanent(text, fix=fix(reply.status))
