import pytest

from collector.service import drain, reload, run, swap
from tests.service.sidecar import Sidecar


@pytest.fixture
async def sidecar(tmp_path):
    made = Sidecar(tmp_path)
    yield made
    if not made.task.done():
        await made.stop()


@pytest.fixture
def quick(monkeypatch):
    """Seconds become hundredths."""
    monkeypatch.setattr(drain, "QUIET", 0.05)
    monkeypatch.setattr(run, "TICK", 0.01)
    monkeypatch.setattr(run, "QUIET_TICK", 0.01)
    for module in (reload, run, swap):
        monkeypatch.setattr(module, "LAST_MOMENT", 0.2)
