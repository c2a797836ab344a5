"""service.process: what is settled before the loop runs."""

import gc
import os
import subprocess
import sys

import pytest

from collector.otlp.plain import COMPILED
from collector.service.process import loop_factory, tune_memory


def test_uvloop_is_used_where_it_is_installed(monkeypatch):
    import uvloop

    assert loop_factory() is uvloop.new_event_loop
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_factory() is None


def test_garbage_is_looked_for_less_often_than_python_would():
    before = gc.get_threshold()
    try:
        tune_memory()
        assert gc.get_threshold()[0] == 20_000
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize(("wish", "named"), [("python", "python"), ("", "compiled" if COMPILED else "python")])
def test_the_process_names_the_walker_that_is_in_use(wish, named):
    command = [sys.executable, "-c", "from collector.service.process import WALKER; print(WALKER)"]
    environment = {**os.environ, "OTEL_SIDECAR_WALKER": wish} if wish else None
    assert subprocess.check_output(command, env=environment, text=True, timeout=30) == f"{named}\n"
