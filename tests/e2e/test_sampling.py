"""What Jaeger holds after 10,000 clean and 500 failed traces went through the standard pipeline."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Start
from tests.e2e.load import Corpus, corpus, send
from tests.e2e.pipelines import standard
from tests.e2e.stack import Jaeger, Loki, Sidecar, wait_for

SERVICE = "sampled-shop"


@pytest.fixture(scope="module")
def sent() -> Corpus:
    return corpus(10_000, 500, SERVICE)


@pytest.fixture(scope="module")
def sidecar(start_sidecar: Start, jaeger: Jaeger, loki: Loki, sent: Corpus) -> Sidecar:
    config = standard(jaeger, loki, share=10)
    config["processors"]["tail_sampling"]["record_policy"] = True
    sidecar = start_sidecar(config)
    send(sidecar.grpc, sent.requests)
    return sidecar


@pytest.fixture(scope="module")
def found(sidecar: Sidecar, jaeger: Jaeger, sent: Corpus) -> dict[str, set[str]]:
    """Trace id to span ids as Jaeger has them, once the sidecar has decided and sent everything."""

    def settled() -> bool:
        books = sidecar.balance("traces", "otlp_grpc/jaeger")
        held = sidecar.total("otelcol_processor_tail_sampling_sampling_traces_on_memory", own=True)
        done = books["accepted"] == books["delivered"] + books["dropped"] and books["delivered"] > 0
        return done and not held and set(sent.failed) <= set(jaeger_traces(jaeger))

    wait_for(settled, 60, "everything decided and delivered")
    return jaeger_traces(jaeger)


def jaeger_traces(jaeger: Jaeger) -> dict[str, set[str]]:
    return {each["traceID"].zfill(32): {s["spanID"].zfill(16) for s in each["spans"]} for each in jaeger.traces(SERVICE)}


def test_every_trace_with_an_error_is_in_jaeger_with_all_its_spans(found: dict[str, set[str]], sent: Corpus) -> None:
    """R-201, R-203, R-204."""
    broken = {key: (found.get(key, set()), spans) for key, spans in sent.failed.items() if found.get(key) != spans}
    assert not broken, f"{len(broken)} of {len(sent.failed)} error traces incomplete, e.g. {next(iter(broken.items()))}"


def test_about_a_tenth_of_the_clean_traces_is_in_jaeger_and_each_is_complete(found: dict[str, set[str]], sent: Corpus) -> None:
    """R-201."""
    kept = {key: found[key] for key in sent.clean.keys() & found.keys()}
    failed = len(sent.failed.keys() & found.keys())
    print(f"in Jaeger: {len(kept)} of {len(sent.clean)} clean traces, {failed} of {len(sent.failed)} with an error")
    assert 0.09 <= len(kept) / len(sent.clean) <= 0.11
    broken = [key for key, spans in kept.items() if spans != sent.clean[key]]
    assert not broken, f"{len(broken)} of {len(kept)} clean traces incomplete"


def test_jaeger_holds_nothing_that_was_not_sent(found: dict[str, set[str]], sent: Corpus) -> None:
    assert found.keys() <= sent.clean.keys() | sent.failed.keys()


def test_a_second_sidecar_keeps_exactly_the_same_clean_traces(
    found: dict[str, set[str]], sent: Corpus, sidecar: Sidecar, start_sidecar: Start, jaeger: Jaeger, loki: Loki
) -> None:
    """R-202: the share is a function of the trace id, so it does not matter which sidecar saw the trace."""
    other = start_sidecar(standard(jaeger, loki, share=10))
    once, again = (corpus(2_000, 0, f"{SERVICE}-{name}", seed=2) for name in ("once", "again"))
    assert once.clean == again.clean
    send(sidecar.grpc, once.requests)
    send(other.grpc, again.requests)

    def kept(name: str) -> set[str]:
        return {each["traceID"].zfill(32) for each in jaeger.traces(f"{SERVICE}-{name}")}

    wait_for(lambda: kept("once") and kept("once") == kept("again"), 30, "the same traces from both sidecars")
    assert 0.07 <= len(kept("again")) / 2_000 <= 0.13


def test_the_books_add_up(found: dict[str, set[str]], sidecar: Sidecar) -> None:
    """R-111 (partly): every span that was accepted for a destination is delivered, dropped with a reason, or queued."""
    books = sidecar.balance("traces", "otlp_grpc/jaeger")
    assert books["accepted"] == books["delivered"] + books["dropped"] + books["queued"]


def test_a_kept_span_says_which_policy_kept_it(found: dict[str, set[str]], jaeger: Jaeger, sent: Corpus) -> None:
    """R-207 (partly)."""
    for each in jaeger.spans(SERVICE):
        failed = each["traceID"].zfill(32) in sent.failed
        assert each["tags"]["tailsampling.policy"] in (("errors", "rest") if failed else ("rest",))
        assert each["tags"]["sampling.probability"] in ((1, 0.1) if failed else (0.1,))


def test_own_counters_say_what_was_kept_and_dropped(found: dict[str, set[str]], sidecar: Sidecar, sent: Corpus) -> None:
    """R-207, R-564 (partly)."""
    received = sidecar.total("otelcol_receiver_accepted_spans_total", own=True)
    assert received >= sent.spans()
    assert sidecar.total("otelcol_processor_tail_sampling_global_count_traces_sampled_total", own=True, sampled="true") > 0
    assert sidecar.total("otelcol_processor_tail_sampling_global_count_traces_sampled_total", own=True, sampled="false") > 0
