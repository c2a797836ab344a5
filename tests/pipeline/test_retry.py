"""pipeline.retry: when to send again."""

from hypothesis import given
from hypothesis import strategies as st

from collector.fields import Retry
from collector.pipeline.retry import Pulse, backoff

POLICY = Retry.model_validate({"initial_interval": "1s", "max_interval": "5s", "multiplier": 2.0, "randomization_factor": 0.5})


def test_waits_grow_by_the_multiplier_up_to_the_longest():
    assert [backoff(POLICY, attempt, lambda: 0.5) for attempt in range(5)] == [1, 2, 4, 5, 5]


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_a_wait_stays_within_the_jitter(attempt, chance):
    assert 0.5 <= backoff(POLICY, attempt, lambda: chance) <= 7.5


def test_a_flaky_destination_is_not_down():
    pulse = Pulse(0)
    for second in range(60):
        pulse.failed(second, 1, asked=0)
        pulse.succeeded(second + 0.5)
    assert not pulse.down(60)
    assert pulse.not_before == 0


def test_a_destination_is_down_after_five_failures_and_five_seconds_without_success():
    pulse = Pulse(0)
    for _ in range(5):
        pulse.failed(1, 1, asked=0)
    assert not pulse.down(4.9)
    assert pulse.down(5)


def test_the_delay_a_backend_asked_for_holds_back_the_destination():
    pulse = Pulse(0)
    pulse.failed(1, 40, asked=30)
    assert pulse.not_before == 31
    pulse.failed(2, 1, asked=1)
    assert pulse.not_before == 31


def test_a_send_that_was_under_way_does_not_end_the_delay_a_backend_asked_for():
    pulse = Pulse(0)
    pulse.failed(1, 30, asked=30)
    pulse.succeeded(2)
    assert pulse.not_before == 31


def test_success_ends_the_wait_for_a_probe():
    pulse = Pulse(0)
    for _ in range(5):
        pulse.failed(6, 3, asked=0)
    assert pulse.not_before == 9
    pulse.succeeded(7)
    assert pulse.not_before == 0
