"""What the key alone says of a value: it names a secret, or a count that must never be altered."""

from __future__ import annotations

import re
from functools import lru_cache

_COUNT_KEY = re.compile(
    r"(?:(?<![A-Za-z])(?i:length|count|tokens)|(?<=[a-z])(?:Length|Count|Tokens))$|(?i:token_?count(?:\.|$))"  # not `account`
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SECRET_KEY = re.compile(
    r"(?:^|[^a-z0-9])(?:cookie|passw(?:or)?d|passphrase|pwd|secret|authorization|(?:api|access|private|secret)[_\-]?key"
    r"|(?:access|private|refresh|auth|session|bearer)[_\-]?token|credential|ssn|card[_\-]?num(?:ber)?|cvv)s?(?:$|[^a-z0-9])"
)


@lru_cache(4096)
def is_secret_key(key: str) -> bool:
    """Whether an attribute or JSON key names a secret: `password`, `authorization`, `api_key`, as whole words."""
    return bool(_SECRET_KEY.search(_CAMEL.sub("_", key).lower()))


@lru_cache(4096)
def is_count(key: str) -> bool:
    """Whether the key names a length, a count or a number of tokens: never altered (R-312)."""
    return bool(_COUNT_KEY.search(key))
