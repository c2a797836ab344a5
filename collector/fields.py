"""Field types that settings of several components share: durations, secrets, TLS blocks, queue and retry blocks.

Every model forbids unknown keys and reads no type for another (`keep: no` is an error, not False), as otelcol does.
Longer than most files: short blocks that many components share, each read on its own.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
    model_validator,
)

if TYPE_CHECKING:
    import ssl

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d)")


def seconds(text: object) -> float:
    """Seconds in a Go duration such as `300ms`, `1.5s` or `1h30m` (ours also `7d`). Raises ValueError with the fix."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError("write a duration such as 5s or 300ms")
    if not isinstance(text, str):
        if text == 0:
            return 0.0
        raise ValueError(f"a duration needs a unit: write {text}s or {text}ms")
    parts = _PART.findall(text)
    if text == "0":
        return 0.0
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ValueError(f"{text!r} is not a duration: write 5s, 300ms or 1h30m")
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def _text(value: float) -> str:
    return f"{value:g}s" if value >= 1 or value == 0 else f"{value * 1000:g}ms"


def _bytes(value: object) -> object:
    if isinstance(value, str) and (found := re.fullmatch(r"([0-9]+) ?(KiB|MiB|GiB)", value)):
        return int(found[1]) << {"KiB": 10, "MiB": 20, "GiB": 30}[found[2]]
    return value


def listen_address(endpoint: str) -> tuple[str | None, int]:
    """Host (None for all addresses) and port of `host:port`. Raises ValueError with the fix.

    `localhost` is 127.0.0.1: otelcol listens on the first address of a name only, and not every host has IPv6.
    """
    host, colon, port = endpoint.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ValueError(f"{endpoint!r} is not an address to listen on: write localhost:4317 or 0.0.0.0:4317")
    host = host.strip("[]")
    return ("127.0.0.1" if host == "localhost" else host or None), int(port)


def _listen(value: str) -> str:
    listen_address(value)
    return value


Duration = Annotated[
    float,
    BeforeValidator(seconds),
    PlainSerializer(_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "duration"}),
]
"""Seconds, written as a Go duration."""
ByteSize = Annotated[int, BeforeValidator(_bytes), Field(ge=0), WithJsonSchema({"type": ["integer", "string"]})]
"""Bytes, written as a number or as 256KiB, 64MiB."""
Listen = Annotated[str, AfterValidator(_listen)]
"""`host:port` to listen on; an empty host means all addresses."""
Secret = SecretStr
"""Text that is never printed: `get_secret_value()` at the one place of use."""
Headers = Annotated[dict[str, Secret], BeforeValidator(lambda value: _headers(value))]
"""Request headers, `name: value` or (otelcol) a list of `{name, value}`; RFC 9110 names, no control characters."""


def _headers(value: object) -> object:
    if isinstance(value, list) and all(isinstance(entry, dict) and set(entry) == {"name", "value"} for entry in value):
        value = {entry["name"]: entry["value"] for entry in value}
    if not isinstance(value, dict):
        return value
    out = {key: str(item) if isinstance(item, int) and not isinstance(item, bool) else item for key, item in value.items()}
    for key, item in out.items():
        if not isinstance(key, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", key):
            raise ValueError("a header name holds letters, digits and - only")
        if isinstance(item, str) and not re.fullmatch(r"[\t\x20-\x7e\x80-\U0010ffff]*", item):
            raise ValueError(f"the value of header {key} holds a line break or control character")
    return out


class Config(BaseModel):
    """Base of every settings model. The docstring under a field is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        texts = described(cls)
        for name, field in cls.model_fields.items():
            key = field.alias or name
            if name in texts and key in properties:
                properties[key].setdefault("description", texts[name])
        return schema


@cache
def described(model: type[BaseModel]) -> dict[str, str]:
    """The docstring of every field, inherited ones too.

    Read from the source when somebody asks: pydantic's own use_attribute_docstrings would do it at every start (0.1 s).
    """
    import ast
    import inspect
    from textwrap import dedent

    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Config) and base is not Config:
            body = ast.parse(dedent(inspect.getsource(base))).body[0]
            assert isinstance(body, ast.ClassDef)
            for field, text in zip(body.body, body.body[1:], strict=False):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as words)):
                        found[name] = inspect.cleandoc(words)
    return found


class ServerTLS(Config):
    """TLS of a listener (otelcol: configtls.ServerConfig)."""

    cert_file: str = ""
    """Certificate chain, PEM."""
    key_file: str = ""
    """Private key, PEM."""
    cert_pem: Secret = Secret("")
    """Certificate chain itself instead of a file."""
    key_pem: Secret = Secret("")
    """Private key itself instead of a file."""
    client_ca_file: str = ""
    """CA that signs client certificates; when set, every client must show one (mTLS)."""
    min_version: Literal["1.2", "1.3"] = "1.2"
    """Lowest TLS version."""
    max_version: Literal["", "1.2", "1.3"] = ""
    """Highest TLS version, empty for the newest."""
    reload_interval: Duration = 0.0
    """Read the certificate files again that often; 0 never."""

    @model_validator(mode="after")
    def _pair(self) -> ServerTLS:
        if not (self.cert_file or self.cert_pem.get_secret_value()) or not (self.key_file or self.key_pem.get_secret_value()):
            raise ValueError("TLS needs a certificate and a key: set cert_file and key_file")
        return self

    def certificate(self) -> tuple[bytes, bytes]:
        """Chain and key, PEM. Raises OSError when a file cannot be read."""
        chain = Path(self.cert_file).read_bytes() if self.cert_file else self.cert_pem.get_secret_value().encode()
        key = Path(self.key_file).read_bytes() if self.key_file else self.key_pem.get_secret_value().encode()
        return chain, key

    def context(self) -> ssl.SSLContext:
        """For an HTTP listener. Raises OSError or ssl.SSLError when a file is unusable."""
        import ssl
        from tempfile import NamedTemporaryFile

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.client_ca_file or None)
        context.verify_mode = ssl.CERT_REQUIRED if self.client_ca_file else ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3 if self.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
        if self.max_version:
            context.maximum_version = ssl.TLSVersion.TLSv1_3 if self.max_version == "1.3" else ssl.TLSVersion.TLSv1_2
        with NamedTemporaryFile(suffix=".pem") as file:  # ssl reads keys from files only; nobody else may read this one
            file.write(b"\n".join(self.certificate()))
            file.flush()
            context.load_cert_chain(file.name)
        return context


class ClientTLS(Config):
    """TLS towards a backend (otelcol: configtls.ClientConfig)."""

    insecure: bool = False
    """Plain text, no TLS at all."""
    insecure_skip_verify: bool = False
    """Take any certificate (HTTP exporters only)."""
    ca_file: str = ""
    """CA to trust instead of the system's, PEM."""
    ca_pem: str = ""
    """The same as text."""
    cert_file: str = ""
    """Client certificate for mTLS, PEM."""
    key_file: str = ""
    """Its private key, PEM."""
    server_name_override: str = ""
    """Name to expect in the server's certificate."""
    min_version: Literal["1.2", "1.3"] = "1.2"
    """Lowest TLS version (HTTP exporters only)."""

    @model_validator(mode="before")
    @classmethod
    def _refused(cls, value: object) -> object:
        return without_type(
            value,
            "cert_pem key_pem max_version cipher_suites curve_preferences reload_interval include_system_ca_certs_pool tpm",
            "use files and the defaults of the TLS library",
        )

    def context(self) -> ssl.SSLContext:
        """For an HTTP client. Raises OSError or ssl.SSLError when a file is unusable."""
        import ssl

        context = ssl.create_default_context(cafile=self.ca_file or None, cadata=self.ca_pem or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_3 if self.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
        if self.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file or None)
        return context


class Retry(Config):
    """otelcol: exporterhelper `retry_on_failure`; waits are seconds."""

    enabled: bool = True
    """Send again what failed with a retryable error."""
    initial_interval: Duration = 1.0
    """First wait (otelcol: 5s)."""
    randomization_factor: float = Field(0.5, ge=0, le=1)
    """Share by which each wait is varied, so that sidecars do not retry in step."""
    multiplier: float = Field(1.5, ge=1)
    """Growth of the wait with each attempt."""
    max_interval: Duration = 5.0
    """Longest wait (otelcol: 30s)."""
    max_elapsed_time: Duration = 0.0
    """Give up after that long, counted as retry_exhausted; 0 never (otelcol: 300s)."""


class QueueBatch(Config):
    """otelcol: `sending_queue.batch`."""

    flush_timeout: Duration = 0.2
    """Send a smaller batch after that long."""
    min_size: int = Field(8192, ge=0)
    """Send as soon as that much waits, measured by `sizer`."""
    max_size: int = Field(0, ge=0)
    """Never send more at once; 0 no limit. Requests are joined, not cut."""
    sizer: Literal["items", "bytes", "requests"] = "items"
    """What min_size and max_size count."""


class Queue(Config):
    """otelcol: exporterhelper `sending_queue`."""

    enabled: bool = True
    """False: send while the client waits and tell it what the backend said."""
    num_consumers: int = Field(10, ge=1, le=100)
    """Sends in flight at once."""
    queue_size: int = Field(1000, ge=1)
    """Room, measured by `sizer`; `max_bytes` always applies too."""
    sizer: Literal["requests", "items", "bytes"] = "requests"
    """What queue_size counts."""
    max_bytes: ByteSize = 0
    """Room in bytes; 0 = this destination's share of the memory limit."""
    on_full: Literal["auto", "backpressure", "drop_oldest", "drop_newest"] = "auto"
    """auto: give up own oldest data (counted queue_full) while another destination of the pipeline still accepts, else refuse."""
    block_on_overflow: bool = False
    """Let the client wait for room, up to 10 s, before it is refused."""
    wait_for_result: bool = False
    """Answer the client only when this destination has accepted the data."""
    batch: QueueBatch = QueueBatch()
    """How queued requests are joined before sending."""


class Push(Config):
    """Settings of every exporter that sends to a backend."""

    sending_queue: Queue = Queue()
    """The queue in front of this exporter."""
    retry_on_failure: Retry = Retry()
    """What happens after a retryable error."""
    timeout: Duration = 5.0
    """Longest time of one attempt."""


def without_type(value: Any, keys: str, reason: str) -> Any:
    """Raise ValueError for an otelcol option that exists there but is refused here, with the reason."""
    for key in keys.split():
        if isinstance(value, dict) and key in value:
            raise ValueError(f"{key} is not supported: {reason}")
    return value
