"""The leak matrix: every place that can hold text, times every shape, times every engine. Also: the engines agree."""

import random

import pytest

from collector.model import Batch, Group, Scope, Signal
from collector.otlp import scan
from collector.processors.redaction import Redaction
from tests.canaries import ALL_CANARIES, ROOTS, leaf_paths, planted
from tests.support import batch, build, decode

engines = pytest.mark.parametrize("engine", scan.ENGINES)
signals = pytest.mark.parametrize("signal", list(Signal))


def groups(request):
    return getattr(request, request.DESCRIPTOR.fields[0].name)


@signals
@engines
def test_no_canary_leaves_from_any_path_in_any_shape(signal, engine, monkeypatch):
    """R-302."""
    monkeypatch.setenv(scan.ENGINE_VARIABLE, engine)
    given = planted(signal)
    processor = build(Redaction)
    out = processor.process(batch(given.request, signal), 0)
    assert processor._scanner.engine == engine
    kept = groups(decode(out))
    assert len(kept) == len(given.canaries)
    leaks = []
    for canary, before, after in zip(given.canaries, groups(given.request), kept, strict=True):
        digits = canary.needle.isdigit()
        assert canary.needle in (plain(before) if digits else str(before)), canary
        if canary.needle in (plain(after) if digits else str(after)):
            leaks.append(canary)
    assert leaks == []
    assert not processor.settings.drop
    assert sum(processor._fail_closed.series().values()) == 0


def plain(message):
    """Text form without separators of groups of digits, and with numbers written out."""
    text = str(message).replace(" ", "")
    numbers = [str(int(float(part))) for part in text.replace("\n", ":").split(":") if part[:1].isdigit() and "e+" in part]
    return text + " ".join(numbers)


@signals
def test_the_matrix_covers_the_paths_of_the_protocol(signal):
    """R-302."""
    paths = [".".join(field.name for field in path) for path in leaf_paths(ROOTS[signal].DESCRIPTOR)]
    assert len(set(paths)) == len(paths) >= {Signal.TRACES: 18, Signal.LOGS: 14, Signal.METRICS: 23}[signal]
    assert {c.path for c in planted(signal).canaries} == set(paths)


def test_canaries_are_unique():
    assert len(set(ALL_CANARIES)) == len(ALL_CANARIES) > 300


@signals
def test_an_id_of_another_length_is_text(signal):
    request = decode(batch(planted(signal).request, signal))
    names = {"trace_id", "span_id", "parent_span_id"}

    def spoil(message):
        found = 0
        for field in message.DESCRIPTOR.fields:
            value = getattr(message, field.name)
            if field.name in names:
                setattr(message, field.name, b"anna@example.com and more")
                found += 1
            elif field.message_type is not None and field.message_type.name not in ("AnyValue", "KeyValue"):
                for each in value if field.is_repeated else (value,) if message.HasField(field.name) else ():
                    found += spoil(each)
        return found

    assert spoil(request) > 3
    out = build(Redaction).process(batch(request, signal), 0)
    assert b"anna@example.com" not in out.encode()


def test_ids_of_the_right_length_are_never_touched():
    request = decode(batch(planted(Signal.TRACES).request))
    wanted = b"4111111111111111"
    for group in request.resource_spans:
        group.scope_spans[0].spans[0].trace_id = wanted
    out = decode(build(Redaction).process(batch(request), 0))
    assert {g.scope_spans[0].spans[0].trace_id for g in out.resource_spans} == {wanted}


def mixed(seed):
    """The planted groups in random order with clean text between them, several items in one scope."""
    rnd = random.Random(seed)
    for signal in Signal:
        opened = batch(planted(signal).request, signal)
        items = [item for scope in opened.scopes() for item in scope.items]
        rnd.shuffle(items)
        yield Batch(signal, [Group(opened.groups[0].header, [Scope(b"", items)])])


def test_all_engines_give_the_same_bytes(monkeypatch):
    results = []
    for engine in scan.ENGINES:
        monkeypatch.setenv(scan.ENGINE_VARIABLE, engine)
        processor = build(Redaction)
        results.append([processor.process(given, 0).encode() for given in mixed(3)])
    assert results[0] == results[1] == results[2]


def test_redacting_twice_is_redacting_once():
    for signal in Signal:
        once = build(Redaction).process(batch(planted(signal).request, signal), 0)
        data = once.encode()
        again = build(Redaction)
        twice = again.process(Batch(signal, once.groups), 0)
        assert twice.encode() == data
        assert not again._detections.series()
