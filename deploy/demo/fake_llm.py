"""A stand-in for an LLM provider: answers the OpenAI and Anthropic HTTP APIs on loopback with fixed token usage.

Every reply has a new id, chat replies name a dated model, and the model `boom` is rate-limited (429).
Usage: fake_llm.py [PORT [HOST]]; prints the port it listens on. Needs nothing but the standard library.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHAT_USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 200,
    "total_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 600, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 64, "audio_tokens": 0},
}
MESSAGES_USAGE = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 600,
    "output_tokens": 200,
    "service_tier": "standard",
    "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 0},
}
EMBEDDING_USAGE = {"prompt_tokens": 8, "total_tokens": 8}


def chat(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Body of POST /v1/chat/completions."""
    return {
        "id": f"chatcmpl-{time.time_ns()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": f"{asked['model']}-2024-08-06",
        "service_tier": "default",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Fine, thank you."}}],
        "usage": CHAT_USAGE,
    }


def chunks(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same answer as a stream; the usage chunk comes only when it was asked for, as at the provider."""
    head = {**chat(asked), "object": "chat.completion.chunk"}
    del head["usage"]
    deltas = [{"role": "assistant", "content": ""}, {"content": "Fine, "}, {"content": "thank you."}, {}]
    out = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]} for delta in deltas]
    if (asked.get("stream_options") or {}).get("include_usage"):
        out.append({**head, "choices": [], "usage": CHAT_USAGE})
    return out


def messages(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Body of POST /v1/messages."""
    return {
        "id": f"msg_{time.time_ns()}",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [{"type": "text", "text": "Fine, thank you."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": MESSAGES_USAGE,
    }


def embeddings(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Body of POST /v1/embeddings."""
    vector = {"object": "embedding", "index": 0, "embedding": [0.1, 0.2, 0.3]}
    return {"object": "list", "model": asked["model"], "data": [vector], "usage": EMBEDDING_USAGE}


ANSWERS = {"/v1/chat/completions": chat, "/v1/messages": messages, "/v1/embeddings": embeddings}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer by path and model."""
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if self.path not in ANSWERS:
            self.reply(404, {"error": {"message": "no such path"}})
        elif asked.get("model") == "boom":
            self.reply(429, {"error": {"message": "Rate limit reached", "type": "rate_limit_error", "code": "rate_limit"}})
        elif asked.get("stream"):
            events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks(asked)) + "data: [DONE]\n\n"
            self.send(200, events.encode(), "text/event-stream")
        else:
            self.reply(200, ANSWERS[self.path](asked))

    def do_GET(self) -> None:
        """Say that the server is up."""
        self.reply(200, {"status": "ok"})

    def reply(self, status: int, body: Mapping[str, Any]) -> None:
        """Send JSON."""
        self.send(status, json.dumps(body).encode(), "application/json")

    def send(self, status: int, body: bytes, kind: str) -> None:
        """Send bytes."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def serve(port: int = 0, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server that listens; the caller runs `serve_forever` and reads the port from `server_address`."""
    return ThreadingHTTPServer((host, port), Handler)


if __name__ == "__main__":
    server = serve(*(int(a) if a.isdigit() else a for a in sys.argv[1:3]))
    print(server.server_address[1], flush=True)
    server.serve_forever()
