"""Finders of personal data: what each type looks like in decoded text and how a candidate is verified.

A finder takes text and the attribute key it stands under and returns spans. Meaning is defined here alone; the prefilter only
decides where to look. Escapes are boundaries, so that the `n` of `\\n` never becomes part of a finding; no finding contains a
double quote, a backslash or a control character, so that JSON stays JSON. Every pattern is linear in the text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator

from collector.processors.redaction.context import is_near, with_context

Span = tuple[int, int]
Finder = Callable[[str, str], Iterable[Span]]

LEFT = r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{4}))"
RIGHT = r"(?![A-Za-z0-9])"
BEHIND = r"(?:(?<![A-Za-z0-9].)|(?<=\\[bfnrt].)|(?<=\\u[0-9A-Fa-f]{4}.))"
"""LEFT as asked behind the first character: a pattern that starts with a character class is searched several times faster."""
_DOMAIN = re.compile(r"@((?:[\w](?:[\w\-]{0,61}\w)?\.){1,8}(?:xn--[A-Za-z0-9\-]{2,20}|[A-Za-z]{2,24}))(?![\w])")
_LOCAL = re.compile(r"[\w%+\-.]{1,64}")
"""Matched backwards from the @: a search for what ends there tries every word before it."""
_ESCAPE_TAIL = re.compile(r"u[0-9A-Fa-f]{4}|[bfnrt]")
_FILE_ENDINGS = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "html", "htm", "json", "xml", "yaml", "yml", "txt", "pdf")
)


def email(text: str, key: str) -> Iterator[Span]:
    """Local part of 1-64 characters, dotted host, top-level domain of 2-24 letters."""
    for match in _DOMAIN.finditer(text) if "@" in text else ():
        local = _LOCAL.match(text[max(0, match.start() - 64) : match.start()][::-1])
        if local is None or match[1].rpartition(".")[2].lower() in _FILE_ENDINGS:
            continue
        start = match.start() - local.end()
        if text[start - 1 : start] == "\\" and (escape := _ESCAPE_TAIL.match(text, start)) and escape.end() < match.start():
            start = escape.end()
        while start < match.start() and text[start] in ".-+%":
            start += 1
        if start < match.start():
            yield start, match.end()


_CARD = re.compile(
    r"[2-6](?=\d{3}[ \-\d])" + BEHIND + r"(?<!\d\..)"
    r"(?=(\d{12,18}|\d{3}([ \-])\d{4}\2\d{4}\2\d{4}(?:\2\d{3})?|(?<=3)\d{3}([ \-])\d{6}\3\d{4,5})(?![A-Za-z0-9]))",
    re.A,
)


def credit_card(text: str, key: str) -> Iterator[Span]:
    """Issuer range and length per brand, compact or grouped with one separator, Luhn."""
    for match in _CARD.finditer(text):
        digits = only_digits(match[0] + match[1])
        if _brand(digits, match[3] is not None) and luhn(digits):
            yield match.start(), match.end(1)
        elif match[2] and len(digits) == 19 and _brand(digits[:16], False) and luhn(digits[:16]):
            yield match.start(), match.start() + 19


def _brand(digits: str, odd_groups: bool) -> bool:
    length, two, three, four = len(digits), int(digits[:2]), int(digits[:3]), int(digits[:4])
    if odd_groups:
        return (length == 15 and two in (34, 37)) or (length == 14 and _diners(two, three))
    return (
        (digits[0] == "4" and length in (13, 16, 19))
        or (length == 16 and (51 <= two <= 55 or 2221 <= four <= 2720))
        or (length == 15 and two in (34, 37))
        or (length in (16, 19) and (four == 6011 or 644 <= three <= 649 or two == 65 or 3528 <= four <= 3589))
        or (length == 14 and _diners(two, three))
    )


def _diners(two: int, three: int) -> bool:
    return 300 <= three <= 305 or two in (36, 38)


def luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others."""
    odd = sum(map(int, digits[-1::-2]))
    return (odd + sum(sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])) % 10 == 0


_COUNTRIES = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18"
    " FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20"
    " LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24"
    " SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _COUNTRIES.split()}
_IBAN = (
    "{0}(?={0}"
    + r"\d\d)"
    + BEHIND.replace("{", "{{").replace("}", "}}")
    + r"(?=(.\d\d(?:[ \-]?{1}{{4}}){{2,7}}(?:[ \-]?{1}{{1,4}})?))"
)
_IBAN_UPPER = re.compile(_IBAN.format("[A-Z]", "[A-Z0-9]"), re.A)
_IBAN_ANY = re.compile(_IBAN.format("[A-Za-z]", "[A-Za-z0-9]"), re.A)


def iban(text: str, key: str) -> Iterator[Span]:
    """Length of the country, mod 97; lower case only near the word `iban`."""
    yield from _ibans(_IBAN_UPPER, text)
    if "iban" in key.lower() or "iban" in text.lower():
        for start, end in _ibans(_IBAN_ANY, text):
            if is_near("iban", text, key, start, end):
                yield start, end


def iban_any_case(text: str, key: str) -> Iterator[Span]:
    """The same in any case."""
    return _ibans(_IBAN_ANY, text)


def _ibans(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    for match in pattern.finditer(text):
        candidate = (match[0] + match[1]).upper()
        length = IBAN_LENGTHS.get(candidate[:2])
        end = _cut(candidate, length) if length else None
        if end is not None and not text[match.start() + end : match.start() + end + 1].isalnum():
            yield match.start(), match.start() + end


def _cut(candidate: str, length: int) -> int | None:
    significant = 0
    for position, letter in enumerate(candidate):
        significant += letter not in " -"
        if significant == length:
            compact = candidate[: position + 1].replace(" ", "").replace("-", "")
            number = int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4]))
            return position + 1 if number % 97 == 1 else None
    return None


_SSN = re.compile(r"\d(?=\d\d[\- ])" + BEHIND + r"(?<!\d[\-.].)(\d\d)([\- ])(\d\d)\2(\d{4})(?![A-Za-z0-9]|[\-.]\d)", re.A)
_NINE = re.compile(r"\d" + BEHIND + r"(?<!\d[\-.].)(\d\d)()(\d\d)(\d{4})(?![A-Za-z0-9]|[\-.]\d)", re.A)


def us_ssn(text: str, key: str) -> Iterator[Span]:
    """3-2-4 with the same separator twice, valid area, group and serial; nine bare digits only near `ssn`."""
    for match in _SSN.finditer(text):
        if _ssn_ranges(match):
            yield match.span()
    for start, end in with_context("us_ssn", _NINE, text, key):
        if (bare := _NINE.match(text, start)) and _ssn_ranges(bare):
            yield start, end


def _ssn_ranges(match: re.Match[str]) -> bool:
    area, group, serial = match[0][:3], match[3], match[4]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


_E164 = re.compile(r"\+(?=[1-9])(?<!\+.)" + BEHIND + r"[1-9](?:[ .\-()]{0,2}\d){7,14}(?![A-Za-z0-9])", re.A)
_FLOAT = re.compile(r"\+\d+\.\d+\Z", re.A)
_NANP = re.compile(
    r"[(1-9](?=[\d .\-]{2})" + BEHIND + r"(?<!\d[\-.].)(?:(?<=1)[ .\-]\(?[2-9]|(?<=\()[2-9]|(?<=[2-9]))"
    r"\d\d(?:\) ?|[ .\-])[2-9]\d\d[ .\-]\d{4}(?![A-Za-z0-9]|[\-.]\d)",
    re.A,
)
_NATIONAL = re.compile(
    LEFT + r"(?<!\d[\-.])(?=[(\d])(?:\(\d{1,5}\) ?|0?\d{1,5}[ .\-/]?)\d{2,12}(?:[ .\-/]\d{2,5}){0,4}" + RIGHT, re.A
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z|\d{1,2}[./\-]\d{1,2}[./\-]\d{2,4}\Z", re.A)


def phone(text: str, key: str) -> Iterator[Span]:
    """`+` and 8-15 digits (E.164); North American with separators; other national forms only near `phone`, `mobile`, `fax`."""
    if "+" in text:
        for match in _E164.finditer(text):
            if not _FLOAT.match(match[0]):
                yield match.span()
    yield from (match.span() for match in _NANP.finditer(text))
    for start, end in with_context("phone", _NATIONAL, text, key):
        if 7 <= len(only_digits(text[start:end])) <= 12 and not _DATE.match(text[start:end]):
            yield start, end


_NHS = re.compile(LEFT + r"\d{3}([ \-]?)\d{3}\1\d{4}" + RIGHT, re.A)
_PASSPORT = re.compile(LEFT + r"(?:[A-Z]{1,2}\d{6,8}|\d{8,9}|[A-Z0-9]{9})" + RIGHT, re.A)
_BIRTH = re.compile(
    LEFT + r"(?:\d{4}[\-/.]\d{1,2}[\-/.]\d{1,2}|\d{1,2}[\-/.]\d{1,2}[\-/.]\d{2,4}|\d{1,2}(?:st|nd|rd|th)? [A-Z][a-z]{2,8},? \d{4}"
    r"|[A-Z][a-z]{2,8} \d{1,2}(?:st|nd|rd|th)?,? \d{4})" + RIGHT,
    re.A,
)
_NINO = re.compile(LEFT + r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]" + RIGHT, re.A)


def uk_nhs(text: str, key: str) -> Iterator[Span]:
    """3-3-4 digits near `nhs`, mod 11."""
    return (span for span in with_context("uk_nhs", _NHS, text, key) if _mod11(only_digits(text[span[0] : span[1]])))


def passport(text: str, key: str) -> Iterator[Span]:
    """A number of the usual forms near `passport`."""
    return (s for s in with_context("passport", _PASSPORT, text, key) if any(c.isdigit() for c in text[s[0] : s[1]]))


def dob(text: str, key: str) -> Iterator[Span]:
    """A date near `dob`, `date of birth`, `born`, `birthday`."""
    return with_context("dob", _BIRTH, text, key)


def uk_nino(text: str, key: str) -> Iterator[Span]:
    """`QQ123456C` near `nino` or `national insurance`."""
    return with_context("uk_nino", _NINO, text, key)


def _mod11(digits: str) -> bool:
    check = 11 - sum(int(d) * weight for d, weight in zip(digits, range(10, 1, -1), strict=False)) % 11
    return check % 11 == int(digits[9])


_IPV4 = re.compile(r"(?<![\w./\-])(?:\d{1,3}\.){3}\d{1,3}(?![\w/\-]|\.\d)", re.A)
_IPV6 = re.compile(r"(?<![\w:./])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])", re.A)


def ip_address(text: str, key: str) -> Iterator[Span]:
    """Public IPv4 and IPv6 addresses."""
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            if is_public(match[0]):
                yield match.span()


def is_public(address: str) -> bool:
    """Whether the text is an address that is routed on the internet."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


_MAC = re.compile(LEFT + r"[0-9A-Fa-f]{2}([:\-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}" + RIGHT, re.A)


def mac(text: str, key: str) -> Iterator[Span]:
    """Six pairs of hex digits with the same separator."""
    return (match.span() for match in _MAC.finditer(text))


def only_digits(text: str) -> str:
    """The digits of a text."""
    return "".join(c for c in text if c.isdigit())
