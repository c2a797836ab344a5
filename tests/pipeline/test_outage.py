"""pipeline.outage: when the own log speaks of a destination."""

from __future__ import annotations

import logging

from collector.pipeline.outage import EVERY, Outage

LOG = logging.getLogger("collector.exporters.out")


def test_an_outage_is_told_at_once_then_seldom_and_its_end_once(caplog):
    caplog.set_level(logging.INFO)
    outage = Outage("out", LOG)
    for second in range(int(EVERY) + 1):
        outage.failing(100.0 + second, "connection refused", 7, 5.2)
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]
    first = caplog.records[0]
    assert (first.exporter, first.error, first.queued_items, first.next_try) == ("out", "connection refused", 7, "5 s")
    outage.over(0)
    outage.over(0)
    assert [r.message for r in caplog.records[2:]] == ["delivers again"]


def test_a_destination_that_comes_and_goes_does_not_flood_the_log(caplog):
    caplog.set_level(logging.INFO)
    outage = Outage("out", LOG)
    for second in range(20):
        outage.failing(second, "busy", 1, 1)
        outage.over(0)
    assert len(caplog.records) == 2


def test_a_destination_without_trouble_is_not_spoken_of(caplog):
    caplog.set_level(logging.INFO)
    Outage("out", LOG).over(3)
    assert caplog.records == []


def test_a_pause_is_told_whatever_was_said_before_with_what_to_fix_and_so_is_its_end(caplog):
    caplog.set_level(logging.INFO)
    outage = Outage("out", LOG)
    outage.failing(1.0, "busy", 7, 1)
    outage.paused(2.0, "HTTP 401", "check the token", 7, 5)
    outage.failing(3.0, "busy", 7, 1)
    outage.over(3)
    _, told, over = caplog.records
    assert (told.levelname, told.exporter, told.error, told.fix) == ("WARNING", "out", "HTTP 401", "check the token")
    assert (told.queued_items, told.next_try) == (7, "5 s")
    assert (over.levelname, over.message, over.queued_items) == ("INFO", "delivers again", 3)
