"""No test reads or writes the cache of whoever runs it. Tests that use `walker` run with the compiled one and without it."""

import os

import pytest

from collector.otlp import plain


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(params=["compiled", "python"])
def walker(request, monkeypatch):
    """Which of the two is in use."""
    if request.param == "compiled" and not plain.COMPILED:
        pytest.skip("the walker is not compiled here")
    if request.param == "python":
        monkeypatch.setattr(plain, "compiled", None)
    return request.param
