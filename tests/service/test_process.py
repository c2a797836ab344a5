"""service.process: what is settled before the loop runs."""

import gc
import os
import subprocess
import sys

import pytest

from collector.otlp.plain import COMPILED
from collector.service.process import _unwritten, loop_factory, release_code, tune_memory


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


def _run(code):
    return subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60).split()


def test_aiohttp_is_imported_without_the_certificates_of_the_system_and_gets_them_when_used():
    code = """
import asyncio, ssl
original = ssl.SSLContext.load_default_certs, ssl.SSLContext.set_default_verify_paths
from collector.service.process import import_aiohttp
import_aiohttp(); import_aiohttp()
import aiohttp, gc
assert (ssl.SSLContext.load_default_certs, ssl.SSLContext.set_default_verify_paths) == original
for context in [c for c in gc.get_objects() if isinstance(c, ssl.SSLContext)]:
    before = context.cert_store_stats()["x509"]
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="example.com")
    same = context.cert_store_stats() == ssl.create_default_context().cert_store_stats()
    print(context.verify_mode.name, context.check_hostname, before, same)
"""
    found = _run(code)
    assert sorted(zip(*[iter(found)] * 4, strict=True)) == [
        ("CERT_NONE", "False", "0", "True"),
        ("CERT_REQUIRED", "True", "0", "True"),
    ]


SMAPS = """\
55d0-55e0 r--p 00000000 00:01 7 /usr/bin/python
Rss: 64 kB
Anonymous: 0 kB
1000-3000 r-xp 00001000 00:01 7 /usr/bin/python with spaces
Rss: 8 kB
Anonymous:             0 kB
3000-4000 r-xp 00002000 00:01 7 /usr/lib/breakpoint.so
Anonymous:             4 kB
4000-5000 rwxp 00002000 00:01 7 /usr/lib/written.so
Anonymous:             0 kB
5000-6000 r-xs 00002000 00:01 7 /usr/lib/shared.so
Anonymous:             0 kB
6000-7000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
7000-8000 r-xp 00000000 00:00 0
Anonymous:             0 kB
a000-c000 r-xp 00002000 00:01 9 /usr/lib/last.so
Anonymous:             0 kB
"""


def test_only_code_of_files_that_nobody_wrote_to_is_let_go():
    assert list(_unwritten(SMAPS.splitlines(keepends=True))) == [(0x1000, 0x2000), (0xA000, 0x2000)]


def test_a_program_without_the_pages_of_its_code_goes_on_smaller():
    code = """
import hashlib, json, ssl, grpc, orjson
from collector.pipeline.admission import resident_bytes
from collector.service.process import release_code
before, released = resident_bytes(), release_code()
print(before - resident_bytes(), released)
assert json.loads(orjson.dumps({"a": [1.5]})) == {"a": [1.5]}
assert hashlib.sha256(b"x").hexdigest().startswith("2d711642b726")
assert ssl.create_default_context() and grpc.insecure_channel("localhost:1")
"""
    gained, released = map(int, _run(code))
    assert gained > 4 << 20
    assert released >= gained


def test_a_system_without_smaps_keeps_its_pages(tmp_path):
    assert release_code(tmp_path / "missing") == 0
