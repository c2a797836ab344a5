"""pipeline.admission: one byte budget for the process."""

import threading

import pytest

from collector.errors import Refused
from collector.pipeline import admission
from collector.pipeline.admission import MIB, MUCH, QUIET, ByteBudget, cgroup_limit, limits, resident_bytes, trim, trim_aside


def test_what_does_not_fit_is_refused_and_takes_nothing():
    """R-111."""
    budget = ByteBudget(400 * MIB, 80 * MIB)
    with budget.hold(budget.request_room - 10) as hold:
        with pytest.raises(Refused, match="high memory usage") as refusal:
            hold.grow(11)
        assert refusal.value.after >= 1
        hold.grow(10)
    assert budget.in_flight == 0


def test_a_failed_request_gives_its_bytes_back():
    budget = ByteBudget(400 * MIB, 80 * MIB)
    with pytest.raises(ValueError), budget.hold(5):
        raise ValueError
    assert budget.in_flight == 0


def test_above_the_soft_limit_everything_is_refused_until_memory_is_back():
    budget = ByteBudget(400 * MIB, 80 * MIB)
    budget.sample(321 * MIB)
    with pytest.raises(Refused):
        budget.hold(1)
    with pytest.raises(Refused):
        budget.check()
    budget.sample(320 * MIB)
    budget.check()


def test_the_message_limit_follows_memory_up_to_64_mib():
    assert ByteBudget(768 * MIB, 0).message_limit() == 64 * MIB
    assert ByteBudget(384 * MIB, 0).message_limit() == 32 * MIB


def test_limits_are_read_as_otelcol_reads_them():
    assert limits(limit_mib=400) == (400 * MIB, 80 * MIB)
    assert limits(limit_mib=400, limit_percentage=10, spike_mib=50, cgroup=1000 * MIB) == (400 * MIB, 50 * MIB)
    assert limits(limit_percentage=50, spike_percentage=10, cgroup=1000 * MIB) == (500 * MIB, 100 * MIB)
    assert limits(cgroup=512 * MIB)[0] == 384 * MIB
    assert limits()[0] == 768 * MIB


def test_the_container_limit_is_read_from_either_cgroup_version(tmp_path):
    assert cgroup_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert cgroup_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.high").write_text("900\n")
    assert cgroup_limit(tmp_path) == 900
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(f"{1 << 62}\n")
    assert cgroup_limit(tmp_path) == 900


def test_the_resident_size_is_that_of_this_process():
    trim()
    assert 10 * MIB < resident_bytes() < 4096 * MIB


def test_a_limit_below_the_need_of_the_program_itself_does_not_refuse_for_ever():
    """R-111."""
    limit, spike = limits(cgroup=128 * MIB)
    budget = ByteBudget(limit, spike)
    budget.settle(90 * MIB)
    assert budget.resident == 90 * MIB
    budget.sample(95 * MIB)
    with budget.hold(64 << 10):
        pass
    budget.sample(120 * MIB)
    with pytest.raises(Refused):
        budget.check()


def test_freed_memory_is_given_back_to_the_system_once_when_it_becomes_quiet(monkeypatch):
    calls = []
    monkeypatch.setattr("collector.pipeline.admission.trim_aside", lambda: calls.append(1))
    budget = ByteBudget(400 * MIB, 80 * MIB)
    for expected in (0, 1, 2):
        for _ in range(3 * QUIET):
            budget.sample(100 * MIB)
        assert len(calls) == expected
        for _ in range(5):
            with budget.hold(1 * MIB):
                pass
            for _ in range(QUIET - 1):
                budget.sample(100 * MIB)
        assert len(calls) == expected, "requests still come"


def test_memory_is_given_back_to_the_system_after_a_large_request(monkeypatch):
    calls = []
    monkeypatch.setattr("collector.pipeline.admission.trim_aside", lambda: calls.append(1))
    budget = ByteBudget(400 * MIB, 80 * MIB)
    for size in (1 * MIB, 20 * MIB):
        with budget.hold(size):
            pass
        budget.sample(100 * MIB)
        budget.sample(100 * MIB)
    assert len(calls) == 1


def test_samples_are_wanted_more_often_while_much_comes_in_or_memory_is_short():
    budget, told = ByteBudget(400 * MIB, 80 * MIB), []
    budget.on_large = lambda: told.append(1)
    for sizes, resident, busy in [
        ((MUCH - 1,), 100, False),
        ((MUCH // 2, MUCH // 2), 100, True),
        ((), 100, False),
        ((), 350, True),
    ]:
        for size in sizes:
            with budget.hold(size):
                pass
        budget.sample(resident * MIB)
        assert budget.busy is busy
    assert not told
    budget.sample(100 * MIB)
    with budget.hold(MUCH):
        assert told == [1]


def test_giving_memory_back_does_not_hold_up_whoever_asks_for_it_and_is_done_once_at_a_time(monkeypatch):
    with admission._trimming:  # what an earlier test began is over
        pass
    calls, entered, go_on = [], threading.Semaphore(0), threading.Semaphore(0)

    def slow():
        calls.append(threading.get_ident())
        entered.release()
        assert go_on.acquire(timeout=10)

    monkeypatch.setattr("collector.pipeline.admission.trim", slow)
    for number in (1, 2):
        trim_aside()
        assert entered.acquire(timeout=10)
        trim_aside()
        assert len(calls) == number, "one is under way"
        go_on.release()
        with admission._trimming:
            pass
    assert threading.get_ident() not in calls


def test_where_no_thread_can_be_started_the_next_sample_tries_again(monkeypatch):
    calls = []

    def fails(*_):
        calls.append(1)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("collector.pipeline.admission._thread.start_new_thread", fails)
    with admission._trimming:
        pass
    trim_aside()
    trim_aside()
    assert len(calls) == 2
