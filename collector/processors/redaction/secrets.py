"""Finders of credentials: a fixed prefix and the right length are enough; no checksum ever vetoes a secret."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator

from collector.processors.redaction.context import matches
from collector.processors.redaction.finders import LEFT, RIGHT, Finder, Span

_UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
SHAPES: dict[str, tuple[str, str]] = {
    # type -> (one of these must stand in the text, pattern)
    "aws_key": ("AKIA ASIA ABIA ACCA", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}" + RIGHT),
    "gcp_key": ("AIza", r"AIza[\w\-]{35}(?![\w\-])"),
    "azure_secret": (
        "Q~ ccountkey= ccountKey= CCOUNTKEY=",
        r"[\w~.]{3}\dQ~[\w~.\-]{31,34}(?![\w~])|(?<=[Aa]ccount[Kk]ey=)[A-Za-z0-9+/]{86}==|(?<=ACCOUNTKEY=)[A-Za-z0-9+/]{86}==",
    ),
    "openai_key": (
        "sk-",
        r"sk-(?:(?:proj|svcacct|admin|None)-[\w\-]{20,}|[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}(?![A-Za-z0-9])"
        r"|[A-Za-z0-9]{48}(?![A-Za-z0-9]))",
    ),
    "anthropic_key": ("sk-ant-", r"sk-ant-(?:api|admin|oat|ort|sid)\d\d-[\w\-]{20,}"),
    "llm_key": (
        "sk- gsk_ xai- pplx-",
        r"(?:sk-or-v1-[0-9a-f]{64}|sk-[0-9a-f]{32}|gsk_[A-Za-z0-9]{52}|xai-[A-Za-z0-9]{80}|pplx-[A-Za-z0-9]{48})" + RIGHT,
    ),
    "langfuse_key": ("-lf-", rf"(?:sk|pk)-lf-{_UUID}" + RIGHT),
    "hf_token": ("hf_", r"hf_[A-Za-z0-9]{30,40}" + RIGHT),
    "github_token": ("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{82})(?!\w)"),
    "slack_token": (
        "xox xapp- hooks.slack",
        r"xox[abeoprs]-[A-Za-z0-9\-]{10,}|xapp-\d-[A-Za-z0-9\-]{10,}"
        r"|hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_\-]{10,}",
    ),
    "stripe_key": ("_live_ _test_ whsec_", r"(?:[srp]k_(?:live|test)_[A-Za-z0-9]{10,247}|whsec_[A-Za-z0-9+/]{16,})" + RIGHT),
}

NEEDS: dict[str, tuple[str, ...]] = {
    **{name: tuple(words.split()) for name, (words, _) in SHAPES.items()},
    "jwt": (".eyJ",), "private_key": ("PRIVATE KEY",), "url_credentials": ("://",),
}  # fmt: skip
"""What a text must hold, one of these, for a finder to find anything in it."""


def shape_finder(name: str) -> Finder:
    """The finder of one of SHAPES."""
    words, pattern = SHAPES[name]
    needed, anywhere, compiled = words.split(), re.compile(pattern, re.A), re.compile(f"{LEFT}(?:{pattern})", re.A)

    def find(text: str, key: str) -> Iterator[Span]:
        if any(word in text for word in needed) and anywhere.search(text):  # several times faster than with a boundary in front
            yield from (match.span() for match in compiled.finditer(text))

    def find_by_word(text: str, key: str) -> Iterator[Span]:
        if any(word in text for word in needed):
            yield from (match.span() for match in matches(compiled, lowered, text))

    lowered = [word.lower() for word in needed]
    return find if name in _INNER_WORDS else find_by_word


_INNER_WORDS = frozenset(("azure_secret", "langfuse_key", "stripe_key"))
"""Their words do not start the pattern."""

_AWS_SECRET = re.compile(
    r"(?:aws_?secret|secret_?access_?key)[^A-Za-z0-9/+]{1,30}([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])", re.A | re.I
)
_aws_shape = shape_finder("aws_key")


def aws_key(text: str, key: str) -> Iterator[Span]:
    """An access key id, or the 40 characters behind `aws_secret` / `secret_access_key`."""
    yield from _aws_shape(text, key)
    if "secret" in text.lower():
        yield from (match.span(1) for match in _AWS_SECRET.finditer(text))


_TOKEN_RUN = re.compile(r"[\w\-.]{20,}", re.A)
_JWT_START = re.compile(LEFT + r"eyJ|(?<=[_\-])eyJ", re.A)


def jwt(text: str, key: str) -> Iterator[Span]:
    """`eyJ.. . eyJ.. [.signature]` whose header decodes to JSON with `alg`; the signature may be missing or cut."""
    if ".eyJ" not in text:
        return
    for run in _TOKEN_RUN.finditer(text):
        if "eyJ" in run[0]:
            yield from _jwts_in(text, *run.span())


def _jwts_in(text: str, low: int, high: int) -> Iterator[Span]:
    position = low
    for part in text[low:high].split("."):
        end = position + len(part)
        if text.startswith("eyJ", end + 1) and end < high:
            for start in [m.start() for m in _JWT_START.finditer(text, position, end)][:8]:
                if _is_header(text[start:end]):
                    stop = end + 1
                    for _ in range(2):  # claims and signature
                        stop = text.find(".", stop, high) + 1 or high + 1
                    yield start, stop - 1
                    return
        position = end + 1


def _is_header(part: str) -> bool:
    try:
        value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "alg" in value


_PEM = re.compile(r"-{2,5}BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-{2,5}", re.A)
_QUOTE = re.compile(r'\\*"')


def private_key(text: str, key: str) -> Iterator[Span]:
    """A PEM private key; without its END line everything to the end of the value (or of the JSON string it stands in)."""
    position = 0
    while "PRIVATE KEY" in text and (begin := _PEM.search(text, position)):
        quote = _QUOTE.search(text, begin.end())
        limit = quote.start() if quote else len(text)
        end = text.find("-----END", begin.end(), limit)
        stop = text.find("-----", end + 8, limit) if end >= 0 else -1
        position = stop + 5 if stop >= 0 else limit
        yield begin.start(), position


_AUTH = re.compile(LEFT + r"(bearer|basic|token)([ :=]+)([\w\-.~+/]{16,}={0,2})", re.A | re.I)


def auth_header(text: str, key: str) -> Iterator[Span]:
    """The credentials behind `Bearer`, `Basic` or `token`; what follows `Basic` must decode to `x:y`."""
    for match in matches(_AUTH, ("bearer", "basic", "token"), text):
        scheme, value = match[1].lower(), match[3]
        if scheme == "basic":
            good = _is_basic(value)
        elif scheme == "token":
            good = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
        else:
            good = True
        if good:
            yield match.span(3)


def _is_basic(value: str) -> bool:
    try:
        return b":" in base64.b64decode(value + "=" * (-len(value) % 4))
    except binascii.Error:
        return False


_USERINFO = re.compile(r"://([^\s/?#\"\\\x00-\x1f]*)@")
_PLACEHOLDER = re.compile(r"\$\{[^}]*\}|\$\w+|<[^<>]*>|\{\{?\w+\}?\}|[*x.]+|null|none|nil|true|false|undefined", re.I | re.A)


def url_credentials(text: str, key: str) -> Iterator[Span]:
    """The password of `scheme://user:password@host`, up to the last `@`; a lone user of 16 or more characters (a DSN key)."""
    for match in _USERINFO.finditer(text) if "://" in text else ():
        user, colon, password = match[1].partition(":")
        start = match.start(1) + (len(user) + 1 if colon else 0)
        value = password if colon else user
        if (colon and value) or len(value) >= 16:
            yield start, match.end(1)


KV_WORDS = r"passw(?:or)?d|passphrase|pwd|(?:secret|api|access|private)[_\-]?key|secret|token|credentials?"
_KV = re.compile(
    rf"""(?<![A-Za-z])({KV_WORDS})(\\{{0,4}}["'])?[ \t\r\n]{{0,3}}[=:][ \t\r\n]{{0,3}}"""
    r"""(?:(\\{0,4}["'])([^"'\\\x00-\x1f]{4,})|([^\s"'\\,;&<>{}()\[\]\x00-\x1f]{4,}))""",
    re.A | re.I,
)
_KV_STARTS = ("passw", "passphrase", "pwd", "secret", "api", "access", "private", "token", "credential")
_PLAIN = "string optional required invalid missing expired incorrect wrong empty value number boolean text unset usage count"
_PLAIN_WORDS = frozenset(_PLAIN.split())


def kv_secret(text: str, key: str) -> Iterator[Span]:
    """The value behind `password=`, `token:` and the like, four characters or more; never a number of tokens."""
    for match in matches(_KV, _KV_STARTS, text) if "=" in text or ":" in text else ():
        group = 4 if match[4] is not None else 5
        value = match[group]
        if _PLACEHOLDER.fullmatch(value) or value.lower() in _PLAIN_WORDS:
            continue
        if match[1].lower() == "token" and value.replace(".", "").isdigit():
            continue
        yield match.span(group)


def literal_finder(values: list[str]) -> Finder:
    """Finds the given texts themselves, the longest first."""
    pattern = re.compile("|".join(re.escape(value) for value in sorted(values, key=len, reverse=True)))

    def find(text: str, key: str) -> Iterator[Span]:
        return (match.span() for match in pattern.finditer(text))

    return find


SECRET_FINDERS: dict[str, Finder] = {
    **{name: shape_finder(name) for name in SHAPES},
    "aws_key": aws_key,
    "jwt": jwt,
    "private_key": private_key,
    "auth_header": auth_header,
    "url_credentials": url_credentials,
    "kv_secret": kv_secret,
}
