"""pipeline.retry: when to send again."""

from hypothesis import given
from hypothesis import strategies as st

from collector.fields import Retry
from collector.model import Signal
from collector.pipeline.retry import Pause, Pulse, backoff

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


TRACES, METRICS, LOGS = Signal.TRACES, Signal.METRICS, Signal.LOGS


def paused(*signals: Signal) -> Pause:
    """A pause of 5 s that began at second 10 with the refusal of these."""
    pause = Pause(5)
    assert [pause.refused(signal, 10) for signal in signals][2:] == [True]
    return pause


def test_three_refusals_in_a_row_begin_a_pause_and_the_first_success_ends_it():
    pause = Pause(5)
    assert [pause.refused(TRACES, second) for second in (1, 2, 3, 4)] == [False, False, True, False]
    assert pause.on
    pause.succeeded(TRACES)
    assert not pause.on
    assert (pause.turn(4), pause.wait(4)) == (None, None)
    assert [pause.refused(TRACES, second) for second in (5, 6, 7)] == [False, False, True]


def test_a_success_or_a_refusal_of_data_between_keeps_up_the_flow():
    pause = Pause(5)
    for end in (lambda: pause.succeeded(TRACES), pause.interrupted):
        for second in (1, 2):
            assert not pause.refused(TRACES, second)
        end()
    assert not pause.refused(TRACES, 9)
    assert not pause.on


def test_in_a_pause_one_record_in_an_interval_is_tried():
    pause = paused(TRACES, TRACES, TRACES)
    assert (pause.turn(14.5), pause.wait(14.5)) == ([METRICS, LOGS], 0.5)
    assert (pause.turn(15), pause.wait(15)) == ([METRICS, LOGS, TRACES], None)
    pause.tried(15)
    assert pause.wait(16) == 4
    pause.refused(TRACES, 17)
    assert pause.wait(17) == 5


def test_a_refusal_of_data_does_not_end_a_pause():
    pause = paused(TRACES, TRACES, TRACES)
    pause.interrupted()
    assert pause.on


def test_the_signals_of_a_pause_are_tried_in_turn():
    pause = paused(LOGS, TRACES, METRICS)
    assert pause.turn(12) == []
    assert pause.turn(15) == [LOGS, TRACES, METRICS]
    pause.refused(LOGS, 15)
    assert pause.turn(20) == [TRACES, METRICS, LOGS]


def test_a_signal_that_a_backend_does_not_take_holds_back_the_others_once_at_most():
    pause = paused(METRICS, METRICS, METRICS)
    pause.succeeded(TRACES)
    assert not any(pause.refused(METRICS, 20) for _ in range(10))
    assert [pause.refused(TRACES, 30) for _ in range(3)] == [False, False, True]
    assert pause.turn(31) == [METRICS, LOGS]
    assert not pause.refused(METRICS, 31)
    assert pause.turn(32) == [LOGS]
    pause.succeeded(METRICS)
    assert [pause.refused(METRICS, 40) for _ in range(3)] == [False, False, True]
