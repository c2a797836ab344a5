"""Settings of `redaction` and how they become rules."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator

from collector.fields import Config, without_type
from collector.processors.redaction import finders, patterns, secrets
from collector.processors.redaction.actions import CHECKSUM, KEY_NAME, SECRET, SHAPE, Rule
from collector.processors.redaction.options import Action, CustomType, Keys, Limits, PseudonymConfig, TypeConfig
from collector.processors.redaction.prefilter import ALWAYS, GROUPS
from collector.processors.redaction.redactor import Redactor

SECRET_VARIABLES = ("SLACK_WEBHOOK_URL", "PAGERDUTY_API_KEY", "SENTRY_DSN", "SMTP_PASSWORD")
"""Environment variables whose values are secrets wherever they appear (R-304)."""

_TABLE: dict[str, tuple[int, str, finders.Finder, bool]] = {
    # type -> (rank, token, finder, on by default)
    "email": (SHAPE, "[EMAIL]", finders.email, True),
    "credit_card": (CHECKSUM, "[CARD]", finders.credit_card, True),
    "iban": (CHECKSUM, "[IBAN]", finders.iban, True),
    "us_ssn": (SHAPE, "[SSN]", finders.us_ssn, True),
    "phone": (SHAPE, "[PHONE]", finders.phone, True),
    "uk_nhs": (CHECKSUM, "[NHS]", finders.uk_nhs, True),
    "passport": (SHAPE, "[PASSPORT]", finders.passport, True),
    "dob": (SHAPE, "[DOB]", finders.dob, True),
    "uk_nino": (SHAPE, "[NINO]", finders.uk_nino, True),
    "ip_address": (SHAPE, "[IP]", finders.ip_address, False),
    "client_ip": (SHAPE, "[IP]", lambda text, key: (), True),
    "mac": (SHAPE, "[MAC]", finders.mac, False),
    "key_name": (KEY_NAME, "[REDACTED]", lambda text, key: (), True),
    **{name: (SECRET, f"[SECRET:{name.upper()}]", find, True) for name, find in secrets.SECRET_FINDERS.items()},
}
TYPES = tuple(_TABLE)
"""Every built-in type."""
_REFUSED = {
    "allowed_keys": "every key is kept; name what has to go in keys.force or blocked_key_patterns",
    "ignored_key_patterns": "keys are matched by globs; write them in keys.exclude",
    "overrides": "settings hold for the whole processor; give each pipeline one of its own, such as redaction/logs",
    "redact_all_types": "lists, maps and large numbers are always looked into; leave it out, or write scan_numbers: all",
    "hash_function": "a hash without a key can be guessed; write default_action: pseudonym and pseudonym.key_file",
    "hmac_key": "pseudonyms have their own block; write default_action: pseudonym and pseudonym.key",
    "url_sanitizer": "credentials and personal data in URLs are always found; leave it out, or write keys.force: [url.query]",
    "db_sanitizer": "personal data in statements is always found; leave it out, or write keys.force: [db.query.text]",
}


class RedactionConfig(Config):
    """Everything is optional: `redaction: {}` finds all default types in all signals."""

    mode: Literal["enforce", "dry_run"] = "enforce"
    """dry_run counts and changes nothing; it needs `allow_unredacted: true`."""
    allow_unredacted: bool = False
    """Confirms that `dry_run` lets personal data through."""
    default_action: Action = "redact"
    """Action of the types that have none of their own."""
    types: dict[str, TypeConfig] = Field({})
    """Per type; `secrets` stands for all secret types."""
    pseudonym: PseudonymConfig = PseudonymConfig()
    """Key and form of pseudonyms."""
    keys: Keys = Keys()
    """Rules by attribute key."""
    custom: list[CustomType] = Field([])
    """Types of your own."""
    blocked_values: list[str] = Field([])
    """RE2 patterns; what matches becomes ****."""
    allowed_values: list[str] = Field([])
    """RE2 patterns; a match of blocked_values that one of them covers entirely may pass."""
    blocked_key_patterns: list[str] = Field([])
    """RE2 patterns of keys whose whole value becomes ****, at every level of nesting."""
    ignored_keys: list[str] = Field([])
    """Keys, nested ones as dotted paths, where only secrets are looked for."""
    scan_numbers: Literal["off", "large", "all"] = "large"
    """Numbers to look at: none, those of at least 2^35 (card numbers), or all."""
    limits: Limits = Limits()
    """Bounds of the work on one request."""
    allow_all_keys: bool = True
    """Accepted without effect when true: every key is kept."""
    summary: Literal["silent"] = "silent"
    """otelcol's summary attributes; only `silent` is supported, counts are in pii_detections_total."""

    @model_validator(mode="before")
    @classmethod
    def _refused(cls, value: Any) -> Any:
        for keys, reason in _REFUSED.items():
            without_type(value, keys, reason)
        if isinstance(value, dict) and value.get("summary") in ("debug", "info"):
            raise ValueError("summary: only silent is supported, findings are counted in pii_detections_total; leave it out")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> RedactionConfig:
        if not self.allow_all_keys:
            raise ValueError(
                "allow_all_keys: false is not supported: every key is kept; leave it out, name what must go in keys.force"
            )
        if self.mode == "dry_run" and not self.allow_unredacted:
            raise ValueError("mode: dry_run forwards personal data; confirm with allow_unredacted: true")
        for name, entry in self.types.items():
            if name != "secrets" and name not in _TABLE:
                raise ValueError(f'types: unknown type "{name}" (valid values: {" ".join(("secrets", *TYPES))})')
            _check_secret(name, entry)
        for entry_glob in self.keys.force:
            _gate(entry_glob)
        for name in {entry.name for entry in self.custom} & set(_TABLE):
            raise ValueError(f'custom: "{name}" is a built-in type; choose another name')
        for pattern in (*self.allowed_values, *(each for each, _ in self._own_patterns())):
            patterns.compiled(pattern)
        if self.pseudonym.build() is None and any(rule.action == "pseudonym" for rule in [*self.rules(), *self._own_rules()]):
            raise ValueError("action pseudonym needs pseudonym.key or pseudonym.key_file: openssl rand -hex 32")
        return self

    def rules(self) -> list[Rule]:
        """One rule per enabled type, in order of rank."""
        found = [rule for name in _TABLE if (rule := self._rule(name)) is not None]
        return sorted(found, key=lambda rule: rule.rank)

    def _rule(self, name: str) -> Rule | None:
        rank, token, find, on = _TABLE[name]
        entry = self.types.get(name) or (self.types.get("secrets") if rank == SECRET else None)
        if not (entry.enabled if entry else on):
            return None
        entry = entry or _DEFAULTS.get(name) or TypeConfig()
        preset = _DEFAULTS.get(name)
        action = entry.action or (preset.action if preset else None) or ("redact" if rank <= SECRET else self.default_action)
        keep = entry if entry.keep_first or entry.keep_last or entry.tail else preset or entry
        groups = GROUPS[name].split()
        if name == "iban" and entry.any_case:
            find, groups = finders.iban_any_case, ["iban_any"]
        return Rule(
            name,
            rank,
            entry.text or token,
            tuple(_with_numbers(groups, self.scan_numbers)),
            find,
            "pseudonym" if action == "hmac" else action,
            keep.keep_first,
            keep.keep_last,
            keep.tail,
            tuple(re.compile(fnmatch.translate(each)) for each in entry.allow),
            needs=secrets.NEEDS.get(name, ("@",) if name == "email" else ()),
        )

    def _own_patterns(self) -> list[tuple[str, str]]:
        named = [(entry.pattern, entry.name) for entry in self.custom]
        named += [(pattern, "blocked_value") for pattern in self.blocked_values]
        return named + [(pattern, "blocked_key") for pattern in self.blocked_key_patterns]

    def _own_rules(self) -> list[Rule]:
        forms = [(name, patterns.byte_form(pattern)) for pattern, name in self._own_patterns()]
        groups = {name: tuple(name if form else ALWAYS for other, form in forms if other == name) for name, _ in forms}
        rules = []
        for entry in self.custom:
            find = patterns.pattern_finder([patterns.compiled(entry.pattern)], entry.context)
            action = "pseudonym" if entry.action == "hmac" else entry.action
            rules.append(Rule(entry.name, SHAPE, f"[{entry.name.upper()}]", groups[entry.name], find, action, own=True))
        if self.blocked_values:
            allowed = [patterns.compiled(each) for each in self.allowed_values]
            find = patterns.pattern_finder([patterns.compiled(each) for each in self.blocked_values], (), allowed)
            rules.append(Rule("blocked_value", SHAPE, "****", groups["blocked_value"], find, own=True))
        if self.blocked_key_patterns:
            rules.append(Rule("blocked_key", SECRET, "****", groups["blocked_key"], _by_key))
        return rules

    def build(self, environment: Mapping[str, str] | None = None) -> Redactor:
        """The compiled redactor; `environment`: variables whose secret values are looked for (default: the process's)."""
        variables = os.environ if environment is None else environment
        literals = [value for name in SECRET_VARIABLES if len(value := variables.get(name, "")) >= 6]
        rules, extra = [*self.rules(), *self._own_rules()], dict[str, bytes]()
        for pattern, name in self._own_patterns():
            if form := patterns.byte_form(pattern):
                extra[name] = extra[name] + b"|" + form if name in extra else form
        if literals:
            extra["literal"] = b"|".join(re.escape(value.encode()) for value in literals)
            rules.insert(
                0, Rule("configured_secret", SECRET, "[SECRET:CONFIGURED]", ("literal",), secrets.literal_finder(literals))
            )
        if self.keys.force:
            extra["forced"] = b"|".join(_gate(each) for each in self.keys.force)
            rules.append(Rule("key_forced", SECRET, "[REDACTED]", ("forced",), _by_key))
        if self.mode == "dry_run":
            rules = [replace(rule, action="detect_only") for rule in rules]
        blocked = [patterns.compiled(each) for each in self.blocked_key_patterns]
        return Redactor(
            rules,
            pseudonyms=self.pseudonym.build(),
            exclude=[*self.keys.exclude, *map(glob.escape, self.ignored_keys)],
            force=self.keys.force,
            blocked=patterns.key_matcher(blocked) if blocked else None,
            extra_patterns=extra,
            blob_min=self.limits.blob_min,
        )


def _by_key(text: str, key: str) -> tuple[finders.Span, ...]:
    """Found by their key, not by their text."""
    return ()


_DEFAULTS = {
    "credit_card": TypeConfig(action="mask", keep_last=4),
    "iban": TypeConfig(action="mask", keep_first=4),
}


def _check_secret(name: str, entry: TypeConfig) -> None:
    rank = SECRET if name == "secrets" else _TABLE[name][0]
    if rank <= SECRET and entry.action in ("mask", "pseudonym", "hmac"):
        raise ValueError(f"types.{name}: secrets are replaced as a whole, {entry.action} would keep a part or a trace")


def _with_numbers(groups: list[str], mode: str) -> list[str]:
    """`large`: items with a number of a card's size; `all`: every item; `off`: none because of its numbers."""
    others = [name for name in groups if name not in ("int64", "double")]
    if mode == "large" or others == groups:
        return groups
    return [*others, ALWAYS] if mode == "all" else others


def _gate(text: str) -> bytes:
    pieces = [piece for piece in re.split(r"[*?.\[\]]+", text) if piece]
    if not pieces:
        raise ValueError(f'keys.force: "{text}" names nothing')
    return re.escape(max(pieces, key=len).encode())
