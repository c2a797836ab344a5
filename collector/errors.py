"""Every error the sidecar raises on purpose; the class says what the caller must do and which answer it becomes.

SidecarError
├── ConfigError          the user must edit the configuration; exit code 78
├── Refused              the client should send again later      gRPC UNAVAILABLE + RetryInfo      HTTP 503 + Retry-After
├── Rejected             the client must not send this again
│   ├── Malformed        undecodable                             INVALID_ARGUMENT + BadRequest     400
│   ├── TooLarge         over a size or count limit              RESOURCE_EXHAUSTED, no RetryInfo  413
│   ├── Unsupported      media type                              UNIMPLEMENTED                     415
│   ├── Unauthenticated  no or wrong credentials                 UNAUTHENTICATED                   401
│   └── Undeliverable    the backend refused it for good         INTERNAL                          500
└── SendError            what an exporter says of one send
    ├── Retryable        send the same again, not before `after` seconds
    ├── Permanent        never send it again; its items are dropped and counted
    └── Oversized        too large for the destination: halve it at item borders and send two
"""

from __future__ import annotations


class SidecarError(Exception):
    """Root of all errors raised on purpose; anything else is a bug."""


class ConfigError(SidecarError):
    """The configuration cannot be used; `str()` is ready to print."""


class Refused(SidecarError):
    """Nothing was taken; the client keeps the data and sends it again after `after` seconds."""

    def __init__(self, message: str, *, after: float = 1.0, reason: str = "overload") -> None:
        super().__init__(message)
        self.after = after
        self.reason = reason


class Rejected(SidecarError):
    """Nothing was taken, and sending the same bytes again would not help."""

    grpc_code = "INTERNAL"
    http_status = 500
    reason = "rejected"


class Malformed(Rejected):
    """The body is not what its content type says. The message holds positions, never payload."""

    grpc_code = "INVALID_ARGUMENT"
    http_status = 400
    reason = "malformed"


class TooLarge(Rejected):
    """The message is over a limit of bytes, items or nested elements."""

    grpc_code = "RESOURCE_EXHAUSTED"
    http_status = 413
    reason = "too_large"


class Unsupported(Rejected):
    """The content type is none of OTLP's."""

    grpc_code = "UNIMPLEMENTED"
    http_status = 415
    reason = "unsupported"


class Unauthenticated(Rejected):
    """Credentials are missing or wrong."""

    grpc_code = "UNAUTHENTICATED"
    http_status = 401
    reason = "unauthenticated"


class Undeliverable(Rejected):
    """A backend without queue in front refused the data for good; the client is told in its class."""

    reason = "undeliverable"


class SendError(SidecarError):
    """What one attempt of an exporter ended with."""


class Retryable(SendError):
    """The destination may take the same payload later; `after` is the delay it asked for, in seconds."""

    def __init__(self, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Permanent(SendError):
    """The destination will never take this payload.

    `fix` = what the user must change when the destination's settings are wrong and not the data: every payload would end so.
    """

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


class Oversized(SendError):
    """The destination takes smaller payloads only."""
