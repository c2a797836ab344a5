"""otlp.kept: believed only when nothing is off."""

import os
import stat

import pytest

from collector.otlp import kept

KEY, DATA = b"what it was made for", b"\0database" * 100


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "otel-sidecar"


@pytest.fixture
def file(folder):
    kept.write("patterns", KEY, DATA)
    (path,) = folder.iterdir()
    assert kept.read("patterns", KEY) == DATA
    return path


def test_what_is_kept_is_read_again_under_its_own_key_and_kind_only(file):
    assert kept.read("patterns", KEY + b"!") is None
    assert kept.read("hyperscan", KEY) is None
    os.rename(file, file.with_name(file.name.replace("patterns", "hyperscan")))
    assert kept.read("hyperscan", KEY) is None


def test_only_its_user_may_read_or_write_it(file):
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("position", [0, 31, 32, -1])
def test_a_changed_byte_makes_it_nothing(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)
    assert kept.read("patterns", KEY) is None


@pytest.mark.parametrize("size", [0, 1, 32, 500])
def test_a_file_cut_short_is_nothing(file, size):
    os.truncate(file, size)
    assert kept.read("patterns", KEY) is None


def test_a_file_that_is_too_large_is_not_even_read(file, monkeypatch):
    monkeypatch.setattr(kept, "_LARGEST", 100)
    assert kept.read("patterns", KEY) is None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_nothing(file, mode):
    file.chmod(mode)
    assert kept.read("patterns", KEY) is None


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_that_others_may_write_is_nothing_and_gets_nothing(file, mode):
    file.parent.chmod(mode)
    assert kept.read("patterns", KEY) is None
    kept.write("patterns", b"other", DATA)
    assert list(file.parent.iterdir()) == [file]


def test_the_file_of_another_user_is_nothing(file, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    assert kept.read("patterns", KEY) is None


def test_a_link_is_nothing(file, tmp_path):
    os.rename(file, tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert kept.read("patterns", KEY) is None


def test_a_folder_behind_a_link_is_nothing(file, tmp_path):
    os.rename(file.parent, tmp_path / "elsewhere")
    file.parent.symlink_to(tmp_path / "elsewhere")
    assert kept.read("patterns", KEY) is None


def test_a_pipe_in_its_place_does_not_block_the_start(file):
    file.unlink()
    os.mkfifo(file)
    assert kept.read("patterns", KEY) is None


def test_nothing_is_left_behind_where_nothing_can_be_written(monkeypatch, folder):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    kept.write("patterns", KEY, DATA)
    assert list(folder.iterdir()) == []
    assert kept.read("patterns", KEY) is None


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null"])
def test_a_read_only_place_costs_nothing_but_the_work(monkeypatch, place):
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    kept.write("patterns", KEY, DATA)
    assert kept.read("patterns", KEY) is None


def test_a_user_without_a_home_keeps_nothing(monkeypatch):
    def no_home(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(kept.Path, "expanduser", no_home)
    assert kept.folder() is None
    kept.write("patterns", KEY, DATA)
    assert kept.read("patterns", KEY) is None


def test_the_folder_does_not_grow_for_ever(folder):
    for number in range(20):
        kept.write("patterns", b"%d" % number, DATA)
    kept.write("hyperscan", KEY, b"usable")
    assert len(list(folder.glob("patterns-*"))) == 8
    assert kept.read("patterns", b"19") == DATA
    assert kept.read("hyperscan", KEY) == b"usable"
