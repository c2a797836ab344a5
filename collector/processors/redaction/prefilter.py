"""Where to look: byte patterns that hit at least every item in which a finder could find something.

No anchors and no outer boundaries (a length byte may look like a letter), literals in any case, and wider than the finders where
text may be non-ASCII, because these count bytes and finders count characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from collector.otlp import numbers

ALWAYS = "always"
"""Wakes its types in every item: patterns of users that have no byte form."""
ESCAPED = "escaped"
"""Wakes every type: what hides behind an escape cannot be told before it is decoded."""

PATTERNS: dict[str, bytes] = {
    # after the @ two to three characters of a host, as ASCII or as whole UTF-8 sequences: random ids hold lone @ and high bytes
    "email": rb"@(?:\w(?:[\w\-.][\w\-.]|[\w\-.]?[\xc2-\xf4][\x80-\xbf])|[\xc2-\xf4][\x80-\xbf]{1,3}[\w\-.\xc2-\xf4])",
    "url": rb"://[^\s/]+@",
    "jwt": rb"eyJ[\w\-]{10}",
    "gcp": rb"AIza[\w\-]{35}",
    "card": numbers.CARD,
    "phone": numbers.PHONE,
    "ssn": numbers.SSN,
    "iban": numbers.IBAN,
    "iban_any": rb"[A-Za-z]{2}\d\d[ \-]?[A-Za-z0-9]{4}[ \-]?[A-Za-z0-9]{4}[ \-]?[A-Za-z0-9]{3}",
    "aws": rb"A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{16}",
    "azure": rb"\dQ~[\w~.\-]{31}|(?i:accountkey=)",
    "sk": rb"sk-[\w\-]{16}",
    "llm": rb"(?:gsk_|xai-|pplx-)[A-Za-z0-9]{40}",
    "langfuse": rb"[sp]k-lf-",
    "github": rb"gh[pousr]_[A-Za-z0-9]{36}|github_pat_",
    "slack": rb"xox[abeoprs]-|xapp-|hooks\.slack",
    "stripe": rb"[srp]k_(?:live|test)_|whsec_",
    "hf": rb"hf_[A-Za-z0-9]{30}",
    "pem": rb"PRIVATE KEY",
    "auth": rb"(?i:bearer|basic|token)[ :=]+[\w\-.~+/]{16}",
    "keys": rb"(?i:passw|passphrase|pwd|secret|authoriz|cookie|api[_\-]?key|(?:access|private)[_\-]?(?:key|token)|credential|ssn"
    rb"|card[_\-]?num|cvv|(?:refresh|auth|session|bearer)[_\-]?token)",
    "token": rb"(?i:token)[\\\"' \t\r\n]{0,9}[=:]",
    "near_ssn": rb"(?i:social[\x00-\xff]{0,4}security)",
    "near_phone": rb"(?i:phone|mobile|fax|tel[^A-Za-z])",
    "near_nhs": rb"(?i:nhs)",
    "near_passport": rb"(?i:passport)",
    "near_dob": rb"(?i:dob|of birth|born|birth[\x00-\xff]{0,4}da)",
    "near_nino": rb"(?i:nino|national[\x00-\xff]{1,4}insurance)",
    "near_iban": rb"(?i:iban)",
    "int64": numbers.INT64,
    "double": numbers.DOUBLE,
    "ip": rb"\d\.\d{1,3}\.\d{1,3}\.\d|[0-9A-Fa-f]?::?[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}",
    "client_ip": rb"client\.address|client_ip",
    "mac": rb"[0-9A-Fa-f]{2}[:\-][0-9A-Fa-f]{2}[:\-][0-9A-Fa-f]{2}[:\-]",
    ESCAPED: rb"%(?:40|2[5BbDd]|3[ADad])|\d%20\d|\\u00[2-7][0-9A-Fa-f]|\\/",
}

GROUPS: dict[str, str] = {
    # type -> patterns that wake it
    "email": "email",
    "credit_card": "card int64 double",
    "iban": "iban near_iban",
    "us_ssn": "ssn keys near_ssn int64 double",
    "phone": "phone near_phone",
    "uk_nhs": "near_nhs",
    "passport": "near_passport",
    "dob": "near_dob",
    "uk_nino": "near_nino",
    "ip_address": "ip",
    "client_ip": "client_ip",
    "mac": "mac",
    "aws_key": "aws keys",
    "gcp_key": "gcp",
    "azure_secret": "azure",
    "openai_key": "sk",
    "anthropic_key": "sk",
    "llm_key": "sk llm",
    "langfuse_key": "langfuse",
    "hf_token": "hf",
    "github_token": "github",
    "slack_token": "slack",
    "stripe_key": "stripe",
    "jwt": "jwt",
    "private_key": "pem",
    "auth_header": "auth",
    "url_credentials": "url",
    "kv_secret": "keys token",
    "key_name": "keys",
}

_LEFT = rb"(?:[^0-9A-Za-z.]|[^0-9]\.|\\[bfnrt]|\\u[0-9A-Fa-f]{4})"
NARROW: dict[str, bytes] = {
    name: _LEFT + b"(?:" + PATTERNS[name] + b")" if name in ("card", "iban", "ssn") else pattern
    for name, pattern in PATTERNS.items()
    if name not in ("int64", "double")
}
"""The same for one decoded value behind a line feed: with boundaries, so that runs of digits are no flood."""


class Masks:
    """Bit masks of pattern positions: which types a set of hits wakes."""

    def __init__(self, types: Mapping[str, Iterable[str]], extra: Mapping[str, bytes] | None = None) -> None:
        """`types`: enabled type -> names of patterns that wake it; `extra`: patterns beside the built-in ones."""
        table = {**PATTERNS, **(extra or {})}
        used = {name for names in types.values() for name in names} | {ESCAPED}
        self.names = [name for name in table if name in used]
        self.patterns = [table[name] for name in self.names]
        self.narrow = [NARROW.get(name, table[name]) for name in self.names]
        bits = {name: 1 << position for position, name in enumerate(self.names)}
        self.always = 1 << len(self.names) if any(ALWAYS in names for names in types.values()) else 0
        bits[ALWAYS] = self.always
        self.escaped = bits[ESCAPED]
        self.wakes = {kind: sum(bits[name] for name in set(names)) | self.escaped for kind, names in types.items()}
        self.all = (1 << len(self.names)) - 1 | self.always
