"""service.logs: one JSON object a line, limited, cleaned, never in the way."""

import io
import logging
import sys

import orjson
import pytest

from collector.config.telemetry import Logs
from collector.service.logs import Limiter, OwnLog, own_log


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def root():
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def written(*calls, stream=None, **options):
    stream = stream or io.StringIO()
    log = OwnLog(stream=stream, **options)
    log.clean = lambda text: text.replace("secret", "****")
    log.start()
    for call in calls:
        call(logging.getLogger("collector.test"))
    log.stop()
    return stream.getvalue().splitlines()


def test_a_line_is_one_json_object_with_time_level_logger_event_and_fields(root):
    """R-610."""
    (line,) = written(lambda log: log.info("hello %s", "you", extra={"count": 3}))
    row = orjson.loads(line)
    assert row["timestamp"].endswith("Z")
    assert (row["level"], row["logger"], row["event"], row["count"]) == ("INFO", "collector.test", "hello you", 3)


def test_every_string_passes_the_redactor_and_is_cut(root):
    """R-306."""
    (line,) = written(lambda log: log.warning("a secret", extra={"value": "secret" + "x" * 1000}))
    row = orjson.loads(line)
    assert "secret" not in line
    assert len(row["value"]) == 256


def test_the_text_of_an_exception_is_never_written(root):
    def fail(log):
        try:
            raise ValueError("4111 1111 1111 1111")
        except ValueError:
            log.exception("failed")

    (line,) = written(fail)
    assert orjson.loads(line)["error"] == "ValueError"
    assert "4111" not in line


def test_a_terminal_gets_text(root):
    (line,) = written(lambda log: log.error("broken", extra={"count": 3}), stream=Terminal())
    assert "ERROR" in line
    assert "broken  count=3  (test)" in line
    assert "\x1b[31m" in line
    (line,) = written(lambda log: log.error("broken"), stream=Terminal(), style="json")
    assert orjson.loads(line)["event"] == "broken"
    (line,) = written(lambda log: log.error("broken"), style="text")
    assert "\x1b" not in line


def test_levels_below_the_wanted_one_are_not_written(root):
    assert written(lambda log: log.info("no"), level="WARNING") == []


def test_repeats_of_one_message_are_limited_and_the_number_left_out_is_told():
    """R-610."""
    now = [0.0]
    limiter = Limiter(lambda: now[0])
    record = logging.makeLogRecord({"name": "x", "msg": "again"})
    assert [limiter.filter(record) for _ in range(15)] == [True] * 10 + [False] * 5
    now[0] = 1.5
    later = logging.makeLogRecord({"name": "x", "msg": "again"})
    assert limiter.filter(later)
    assert later.suppressed == 5


def test_a_record_that_asks_for_it_is_written_whole_and_every_time(root):
    text = "x" * 5000
    lines = written(*[lambda log: log.info("%s", text + "secret", extra={"whole": True})] * 30)
    assert len(lines) == 30
    row = orjson.loads(lines[0])
    assert len(row["event"]) > 5000
    assert "secret" not in lines[0]
    assert "whole" not in row


def test_the_limiter_does_not_grow_without_bound():
    limiter = Limiter(lambda: 0.0)
    for number in range(5000):
        limiter.filter(logging.makeLogRecord({"name": "x", "msg": f"m{number}"}))
    assert len(limiter._windows) <= 1001


def test_lines_are_written_by_another_thread_so_that_a_slow_terminal_holds_up_nobody(root):
    """R-112."""
    import threading

    gate, writers = threading.Event(), []

    class Slow(io.StringIO):
        def write(self, text):
            gate.wait(10)
            writers.append(threading.get_ident())
            return super().write(text)

    log = OwnLog(stream=Slow())
    log.start()
    for number in range(1000):
        logging.getLogger("collector.test").info("line %s", number)  # returns although nothing can be written yet
    assert writers == []
    gate.set()
    log.stop()
    assert set(writers) == set(writers) - {threading.get_ident()}
    assert writers


@pytest.mark.parametrize(
    ("settings", "arguments", "level", "formatter"),
    [
        (Logs(), (), "INFO", "JsonFormatter"),
        (Logs(level="warn", encoding="console"), (), "WARNING", "TextFormatter"),
        (Logs(level="warn", encoding="console"), ("debug", "json"), "DEBUG", "JsonFormatter"),
    ],
)
def test_the_command_line_wins_over_the_configuration(settings, arguments, level, formatter, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    log = own_log(settings, *arguments)
    assert (log._level, type(log._listener.handlers[0].formatter).__name__) == (level, formatter)


def test_the_log_goes_to_standard_error_where_the_configuration_says_so():
    assert own_log(Logs(output_paths=["stderr"]))._listener.handlers[0].stream is sys.stderr
