"""service.process: what is settled before the loop runs."""

import gc
import sys

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
