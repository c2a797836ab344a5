"""How long a batch is when it is encoded, from the lengths of its parts: a tenth of what encoding it costs."""

from __future__ import annotations

from collector.model import Batch, Scope

_ONE_BYTE, _TWO_BYTES = 1 << 7, 1 << 14
"""A length below needs so many bytes itself."""


def encoded_size(batch: Batch) -> int:
    """`len(batch.encode())` of a batch whose headers are encoded as every encoder does."""
    return sum(_field(len(group.header) + sum(_field(_scope(scope)) for scope in group.scopes)) for group in batch.groups)


def _scope(scope: Scope) -> int:
    sizes = list(map(len, scope.items))
    if sizes and min(sizes) >= _ONE_BYTE and max(sizes) < _TWO_BYTES:  # spans and log records nearly always are
        return len(scope.header) + sum(sizes) + 3 * len(sizes)
    return len(scope.header) + sum(map(_field, sizes))


def _field(size: int) -> int:
    """A field with a tag of one byte and so much content."""
    return 1 + max(1, -(-size.bit_length() // 7)) + size
