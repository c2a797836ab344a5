"""processors.memory_limiter: refuse, do not die."""

import pytest
from pydantic import ValidationError

from collector.errors import Refused
from collector.processors.memory_limiter import MemoryLimiter
from tests.support import batch, build, span, traces


def counted(limiter, what):
    return limiter.settings.meters.counter(f"otelcol_processor_memory_limiter_{what}_spans", "", ("processor",)).value("test")


def test_a_batch_passes_untouched_while_there_is_memory():
    limiter, given = build(MemoryLimiter), batch(traces(span(), span()))
    assert limiter.process(given, 0.0) is given
    assert limiter.process(given, 0.0) is given
    assert (counted(limiter, "accepted"), counted(limiter, "refused")) == (4, 0)


def test_above_the_soft_limit_a_batch_is_refused_with_a_retry_hint_and_counted():
    """R-111."""
    limiter = build(MemoryLimiter)
    limiter.settings.host.budget.used = limiter.settings.host.budget.limit + 1
    with pytest.raises(Refused, match="high memory usage") as refusal:
        limiter.process(batch(traces(span(), span())), 0.0)
    assert refusal.value.after >= 1
    assert counted(limiter, "refused") == 2


@pytest.mark.parametrize("given", [
    {"limit_mib": 100, "spike_limit_mib": 100}, {"limit_percentage": 50, "spike_limit_percentage": 60}, {"limit_percentage": 101},
    {"limit_mib": -1},
])  # fmt: skip
def test_limits_that_cannot_work_are_refused(given):
    with pytest.raises(ValidationError):
        MemoryLimiter.Config.model_validate(given)


def test_every_option_of_otelcol_loads():
    MemoryLimiter.Config.model_validate({
        "check_interval": "1s", "limit_mib": 400, "spike_limit_mib": 100, "limit_percentage": 80, "spike_limit_percentage": 20,
        "min_gc_interval_when_soft_limited": "10s", "min_gc_interval_when_hard_limited": "0s",
        "max_gc_interval_when_soft_limited": "30s", "max_gc_interval_when_hard_limited": "30s",
    })  # fmt: skip
