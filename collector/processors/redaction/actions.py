"""What becomes of a finding: typed token, mask, keyed pseudonym."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from collector.processors.redaction.finders import Finder

REDACT, MASK, PSEUDONYM, DROP_ATTRIBUTE, DROP_RECORD, DETECT_ONLY = (
    "redact",
    "mask",
    "pseudonym",
    "drop_attribute",
    "drop_record",
    "detect_only",
)
KEY_NAME, SECRET, CHECKSUM, SHAPE = range(4)
"""Ranks: of overlapping findings the lowest names the token."""

_TOKENS = "EMAIL CARD IBAN SSN PHONE NHS PASSPORT DOB NINO IP MAC"


def marker(tokens: Iterable[str], names: Iterable[str]) -> re.Pattern[str]:
    """Our own tokens: never findings themselves. Only known ones: `[AKIA...]` and `<card:4...>` are what people write, too.

    `tokens`: those of the rules; `names`: the types, for pseudonyms, which are never all digits.
    """
    known = {f"[{name}]" for name in _TOKENS.split()} | set(tokens)
    words = "|".join(re.escape(token) for token in sorted(known, key=len, reverse=True) if token)
    kinds = "|".join(map(re.escape, names)) or "-"
    return re.compile(rf"\[REDACTED(?::[a-z_]+)?\]|{words}|<(?:{kinds}):(?=[0-9]*[a-f])[0-9a-f]{{8,32}}>")


@dataclass(frozen=True, slots=True)
class Rule:
    """One type as configured: where to look, how to find it, what to do."""

    name: str
    rank: int
    token: str
    groups: tuple[str, ...]
    find: Finder
    action: str = REDACT
    keep_first: int = 0
    keep_last: int = 0
    tail: str = ""
    allow: tuple[re.Pattern[str], ...] = ()
    own: bool = False
    needs: tuple[str, ...] = ()
    """A text with none of these holds no finding; empty where nothing as simple can be said."""

    @property
    def everywhere(self) -> bool:
        """Looked for in encoded images and files too: secrets and what users wrote."""
        return self.own or self.secret

    @property
    def secret(self) -> bool:
        """Always replaced as a whole, whatever the attribute."""
        return self.rank <= SECRET


class Pseudonyms:
    """Deterministic keyed tokens: the same key, type and normalised value give the same token everywhere."""

    def __init__(self, key: bytes, *, algorithm: str = "blake2b", digits: int = 16) -> None:
        self._key, self._algorithm, self._digits = key, algorithm, digits

    def token(self, kind: str, value: str) -> str:
        """`<email:9f2c41d07be3a852>`; never all digits, so that no token looks like a number."""
        data = normalise(kind, value).encode("utf-8", "surrogateescape")
        digest = self._digest(kind, data)
        while digest.isdigit():
            data += b"\0"
            digest = self._digest(kind, data)
        return f"<{kind}:{digest}>"

    def _digest(self, kind: str, data: bytes) -> str:
        if self._algorithm == "blake2b":
            person = hashlib.blake2b(kind.encode(), digest_size=16).digest()
            full = hashlib.blake2b(data, key=self._key[:64], person=person, digest_size=16).hexdigest()
        else:
            full = hmac.digest(self._key, kind.encode() + b"\0" + data, "sha256").hex()
        return full[: self._digits]

    @property
    def key_id(self) -> str:
        """Four hex digits that tell keys apart without showing them."""
        return hashlib.sha256(b"key id" + self._key).hexdigest()[:4]


def normalise(kind: str, value: str) -> str:
    """One spelling of a value, so that pseudonyms agree: e-mail lower case, numbers without separators."""
    if kind == "email":
        return value.lower()
    if kind in ("credit_card", "us_ssn", "uk_nhs"):
        return re.sub(r"\D", "", value)
    if kind == "phone":
        return re.sub(r"[^\d+]", "", value)
    if kind in ("iban", "uk_nino"):
        return re.sub(r"[^0-9A-Za-z]", "", value).upper()
    return value


def masked(value: str, keep_first: int, keep_last: int, tail: str) -> str:
    """Letters and digits become `*` but for the kept ones, never more than half; with `tail` the first ones and the tail."""
    significant = [i for i, c in enumerate(value) if c.isalnum()]
    room = len(significant) // 2
    first = min(keep_first, room)
    last = min(keep_last, room - first)
    kept = set(significant[:first]) | set(significant[len(significant) - last :] if last else ())
    if tail:
        end = significant[first - 1] + 1 if first else 0
        return value[:end] + tail
    return "".join(c if i in kept or c in " -" else "*" for i, c in enumerate(value))
