"""Settles the calls of a request at once where all are new and plain: the same as one by one, at half the cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from collector.compiled import compiled_module
from collector.processors.llm_cost.books import Books
from collector.processors.llm_cost.call import Seen
from collector.processors.llm_cost.dedup import Dedup
from collector.processors.llm_cost.plans import Plan, Quick
from collector.processors.llm_cost.prices import PriceBook
from collector.processors.llm_cost.rates import Entry
from collector.processors.llm_cost.stamp import double
from collector.processors.llm_cost.tally import Call
from collector.processors.llm_cost.usage import Usage

_LONGEST_ID = 256
compiled = compiled_module("processors.llm_cost._calls")
"""Settles calls one by one, in C; None where it is not in use."""
Found = tuple[int, int, int, Seen | Quick, list[bytes], int]
"""End and minus start first: in that order children come before their parents. Then the position in the batch, the call, and
where its span stands."""


def settle_each(
    found: list[Found], arrival: int, dedup: Dedup, books: Books, slow: Callable[[Found], bool], now: float
) -> bool | None:
    """Settle calls in this order, those not plain by `slow`; whether any span was changed. None where nothing was done."""
    room = dedup.room(len(found), now)
    if compiled is None or room is None:
        return None
    marks, ids = room
    changed, counted = compiled.settle(found, arrival, marks, ids, books.high, slow, books.tally_of, books.keep, books.fresh)
    books.counted(counted)
    return bool(changed)


def settle_together(
    calls: Sequence[Quick], moments: Sequence[int], book: PriceBook, dedup: Dedup, books: Books, now: float
) -> list[bytes] | None:
    """The new bytes of each span, its call counted. None, and nothing is counted, where they must be settled one by one.

    `moments`: when the price of each counts (ns).
    """
    ends, starts, plans, items, owns, parents, told, identities, firsts, traces = zip(*calls, strict=True)
    usages = [usage for usage in told if usage is not None]
    if len(usages) < len(calls) or None in identities:
        return None
    groups: dict[Plan, list[int]] = {}
    for place, plan in enumerate(plans):
        groups.setdefault(plan, []).append(place)
    amounts = _amounts(groups, moments, usages, book)
    if amounts is None or any(plan.rollup for plan in groups):
        return None
    known = [(plan.provider, identity[:_LONGEST_ID]) for plan, identity in zip(plans, identities, strict=True)]
    if not dedup.take(owns, parents, known, now):
        return None
    out: list[bytes] = list(items)
    counted: list[Call] = [None] * len(calls)  # type: ignore[list-item]
    for plan, places in groups.items():
        stamp, counts, tally = plan.stamp or (), plan.missing.counts, books.tally_of(plan)
        for place in places:
            usage, amount = usages[place], amounts[place]
            stamped = items[place] + double(amount).join(stamp)
            out[place] = stamped if counts is None else stamped + counts(usage)
            seconds = (ends[place] - starts[place]) / 1e9
            counted[place] = (tally, moments[place], seconds, firsts[place], usage, amount, traces[place])
    books.add_all(counted, max(amounts))
    return out


def _amounts(
    groups: dict[Plan, list[int]], moments: Sequence[int], usages: Sequence[Usage], book: PriceBook
) -> list[float] | None:
    """USD of each call, None when one of them is not simply its usage at the price of its plan."""
    amounts = [0.0] * len(usages)
    for plan, places in groups.items():
        entry = _entry(plan, [moments[place] for place in places], book)
        if entry is None or not plan.complete or plan.stamp is None:
            return None
        price = entry.price
        for place in places:
            amounts[place] = price(usages[place])
    return amounts


def _entry(plan: Plan, moments: Sequence[int], book: PriceBook) -> Entry | None:
    """The price that holds at all these moments."""
    entry = plan.price(moments[0], book)
    if entry is None or entry is not plan.entry or not entry.from_ns <= min(moments) <= max(moments) < entry.until_ns:
        return None
    return entry
