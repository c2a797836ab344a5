"""The blocks inside the settings of `redaction`: per type, pseudonyms, types of your own, keys, limits."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from collector.fields import ByteSize, Config, Secret
from collector.processors.redaction.actions import Pseudonyms

Action = Literal["redact", "mask", "pseudonym", "hmac", "drop_attribute", "drop_record", "detect_only"]


class TypeConfig(Config):
    """What happens to one type."""

    enabled: bool = True
    """Look for this type at all."""
    action: Action | None = None
    """redact, mask, pseudonym (alias hmac), drop_attribute, drop_record or detect_only; default: the type's own."""
    keep_first: int = Field(0, ge=0, le=16)
    """mask: letters and digits to keep at the start, never more than half."""
    keep_last: int = Field(0, ge=0, le=16)
    """mask: letters and digits to keep at the end, never more than half."""
    tail: str = ""
    """mask: this text instead of asterisks behind the kept start, such as `***`."""
    text: str = ""
    """redact: this text instead of the typed token."""
    allow: list[str] = Field([])
    """Globs of values that may pass, such as `*@example.com`."""
    any_case: bool = False
    """iban: find lower case without the word `iban` nearby (makes every scan dearer)."""

    @field_validator("tail", "text")
    @classmethod
    def _plain(cls, value: str) -> str:
        if re.search(r'["\\\x00-\x1f]', value):
            raise ValueError("must not hold quotes, backslashes or control characters: JSON would break")
        return value


class PseudonymConfig(Config):
    """The key of deterministic tokens."""

    key: Secret = Secret("")
    """At least 32 bytes, hexadecimal or base64; the same key in all sidecars gives the same tokens."""
    key_file: str = ""
    """A file that holds the key; nobody but its owner may read it."""
    algorithm: Literal["blake2b", "hmac-sha256"] = "blake2b"
    """Keyed hash."""
    digest_chars: int = Field(16, ge=8, le=32)
    """Hexadecimal digits of a token."""

    def build(self) -> Pseudonyms | None:
        """Ready to use; None without key. Raises ValueError for an unusable key."""
        text = self.key.get_secret_value() or (_read_key(self.key_file) if self.key_file else "")
        if not text:
            return None
        return Pseudonyms(_decoded(text.strip()), algorithm=self.algorithm, digits=self.digest_chars)


def _read_key(name: str) -> str:
    try:
        if os.stat(name).st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise ValueError(f"key_file {name}: others may read or change it; run chmod 600 {name}")
        return Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"key_file {name}: {getattr(error, 'strerror', None) or 'not text'}") from None


def _decoded(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        try:
            key = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise ValueError("the pseudonym key is neither hexadecimal nor base64") from None
    if len(key) < 32:
        raise ValueError(f"the pseudonym key has {len(key)} bytes, at least 32 are needed: openssl rand -hex 32")
    return key


class CustomType(Config):
    """A type of your own."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    """Its name in metrics and tokens."""
    pattern: str
    """RE2 pattern."""
    context: list[str] = Field([])
    """One of these words must stand in the key or within 30 characters."""
    action: Action = "redact"
    """What happens to a finding."""


class Keys(Config):
    """Attribute keys with a rule of their own; globs on the dotted path, members of nested maps included."""

    force: list[str] = Field([])
    """The whole value goes, whatever it holds."""
    exclude: list[str] = Field([])
    """Only secrets are looked for here."""


class Limits(Config):
    """Bounds of the work on one request."""

    max_hits: int = Field(2000, ge=10)
    """More candidates than that in one item, and it is searched under the verify budget."""
    verify_budget: ByteSize = 262144
    """Bytes times types that may be verified in items with too many candidates; the rest becomes [REDACTED:budget]."""
    blob_min: int = Field(4096, ge=1024)
    """An unbroken run of that many base64 or hexadecimal digits is taken for an image or a file: only secrets and your own
    patterns are looked for in its middle."""
    max_depth: int = Field(16, ge=1, le=64)
    """Nesting of attribute values; what lies deeper becomes [REDACTED:depth]."""
