"""llm_cost.tally: what calls add up to, in C and in Python."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.processors.llm_cost import tally
from collector.processors.llm_cost.usage import Usage

_count = st.integers(0, 10**12)
_usage = st.one_of(
    st.none(),
    st.tuples(_count, _count, _count, _count, _count).map(lambda counts: Usage(*counts)),
    _count.map(lambda total: Usage(total=total)),
)
_seconds = st.floats(0, 1e9)
_call = st.tuples(
    st.none(), st.integers(0, 2**63 - 1), _seconds, st.none() | _seconds, _usage, st.none() | st.floats(0, 1e6), st.binary()
)
compiled = pytest.mark.skipif(tally._compiled is None, reason="it is not compiled here")


@compiled
@given(st.lists(_call, min_size=1, max_size=20))
def test_sums_are_the_same_in_c_and_in_python(calls: list[Any]) -> None:
    assert tally._compiled.add_up(calls) == tally.add_up(calls)


def test_sums_tell_what_was_used_and_what_was_not_split() -> None:
    calls: list[Any] = [
        (None, 5, 0.5, None, Usage(1, 2, 3, 4, 5), 0.25, b""),
        (None, 3, 1.5, 0.125, None, None, b""),
        (None, 9, 2.5, None, Usage(total=70), None, b""),
    ]
    assert tally.add_up(calls) == ([0.5, 1.5, 2.5], [0.125], [0.25], 3, 9, 1, 2, 7, 5, 70, 2, 1)


@pytest.mark.parametrize("way", ["compiled", "python"])
@pytest.mark.parametrize(("status", "unpriced"), [("success", 3), ("error", 1)])
def test_a_failed_call_without_tokens_is_not_unpriced(
    way: str, status: str, unpriced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "python":
        monkeypatch.setattr(tally, "_add_up", tally.add_up)
    one = tally.Tally(("a", "b", "c", "d"), status)
    one.calls = [(one, 5, 0.5, None, usage, amount, b"") for usage, amount in
                 ((None, None), (Usage(0, 0, 0, 0, 0), None), (Usage(total=7), None), (Usage(1, 0, 0, 0, 1), 0.5))]  # fmt: skip
    one.sum_up()
    assert (one.unpriced, one.cost, one.tokens, one.duration) == (unpriced, 0.5, 9, 2.0)
