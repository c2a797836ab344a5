"""Cuts a request at item borders: the same data in several smaller requests."""

from __future__ import annotations

from collections.abc import Iterator

from collector.model import Batch, Group, Payload, Scope, open_envelope

_FRAME = 5
"""Bytes that say what and how long an item, a scope or a group is, at most."""


def slices(batch: Batch, size: int, each: int = 0) -> Iterator[Batch]:
    """Batches of at most about `size` bytes of items (one larger item goes alone), in order, headers repeated.

    `each`: bytes that an item counts for beside its own.
    """
    groups: list[Group] = []
    used = 0
    for group in batch.groups:
        for scope in group.scopes:
            start = 0
            for position, item in enumerate(scope.items):
                cost = len(item) + each
                if used and used + cost > size:
                    _append(groups, group, scope, start, position)
                    yield batch.replace(groups)
                    groups, used, start = [], 0, position
                used += cost
            _append(groups, group, scope, start, len(scope.items))
    if groups:
        yield batch.replace(groups)


def _append(groups: list[Group], group: Group, scope: Scope, start: int, end: int) -> None:
    if start == end:
        return
    if not groups or groups[-1].header is not group.header:
        groups.append(Group(group.header, []))
    heads = scope.heads[start:end] if scope.heads is not None else None
    ids = scope.trace_ids[start:end] if scope.trace_ids is not None else None
    points = scope.points[start:end] if scope.points is not None else None
    groups[-1].scopes.append(Scope(scope.header, scope.items[start:end], heads, ids, points))


def cut(payload: Payload, size: int) -> list[Payload]:
    """Payloads of at most `size` bytes; the same one when it is small enough or has one item.

    Larger is only one item alone, or what has headers of half that size: each part repeats some of them.
    """
    if len(payload.data) <= size:
        return [payload]
    batch, headers = open_envelope(payload.signal, payload.data), 0
    for group in batch.groups:
        headers += len(group.header) + _FRAME + sum(len(scope.header) + _FRAME for scope in group.scopes)
    return _parts(payload, batch, max(size - headers, size // 2), _FRAME)


def _parts(payload: Payload, batch: Batch, size: int, each: int = 0) -> list[Payload]:
    cuts = slices(batch, size, each)
    parts = [Payload(payload.signal, part.encode(), part.count(), payload.born, payload.metadata) for part in cuts]
    return parts if len(parts) > 1 else [payload]


def halve(payload: Payload) -> list[Payload]:
    """Two payloads with half of the items each; one when there is nothing to halve."""
    batch = open_envelope(payload.signal, payload.data)
    items = batch.items()
    if len(items) < 2:
        return [payload]
    half, largest = len(payload.data) // 2, max(map(len, items))
    return _parts(payload, batch, max(half, largest)) if largest * 2 < len(payload.data) else _one_and_rest(payload)


def _one_and_rest(payload: Payload) -> list[Payload]:
    # One item is more than half of it all: part it from its neighbours, so that it cannot take them along.
    batch = open_envelope(payload.signal, payload.data)
    sizes = list(map(len, batch.items()))
    biggest = sizes.index(max(sizes))
    parts = (_only(batch, {biggest}), _only(batch, set(range(len(sizes))) - {biggest}))
    return [Payload(payload.signal, part.encode(), part.count(), payload.born, payload.metadata) for part in parts]


def _only(batch: Batch, positions: set[int]) -> Batch:
    groups, position = [], 0
    for group in batch.groups:
        scopes = []
        for scope in group.scopes:
            scopes.append(scope.keep(i for i in range(len(scope.items)) if position + i in positions))
            position += len(scope.items)
        groups.append(Group(group.header, scopes))
    return batch.replace(groups)
