"""catalog: a component is a file; user folders are checked before anything in them runs."""

from pathlib import Path

import pytest

from collector.catalog import Catalog
from collector.errors import ConfigError

SHOUT = '''
"""Makes every span's name upper case.

Example:
    {}
"""
from collector.component import Processor


class Shout(Processor):
    def process(self, batch, now):
        return batch
'''


def folder(tmp_path: Path, text: str = SHOUT, name: str = "shout") -> Path:
    (tmp_path / "processors").mkdir(mode=0o755, exist_ok=True)
    (tmp_path / "processors" / f"{name}.py").write_text(text)
    return tmp_path


def test_a_users_file_is_a_component_with_no_other_edit(tmp_path):
    catalog = Catalog([folder(tmp_path)])
    assert "shout" in catalog.types("processors")
    assert catalog.load("processors", "shout").__name__ == "Shout"
    assert catalog.load("processors", "shout") is catalog.load("processors", "shout")
    assert catalog.path("processors", "shout") == tmp_path / "processors" / "shout.py"


def test_a_users_file_may_replace_a_built_in_component(tmp_path):
    assert Catalog([folder(tmp_path, name="batch")]).load("processors", "batch").__name__ == "Shout"


def test_an_unknown_type_lists_the_valid_ones():
    with pytest.raises(ConfigError, match=r'unknown type: "nope" \(valid values: \[.*memory_limiter.*\]\)'):
        Catalog().load("processors", "nope")


def test_a_folder_that_everybody_may_change_is_refused(tmp_path):
    path = folder(tmp_path)
    (path / "processors").chmod(0o777)
    with pytest.raises(ConfigError, match="chmod o-w"):
        Catalog([path])


@pytest.mark.parametrize("make", [lambda p: p / "missing", lambda p: (p / "file").touch() or p / "file"])
def test_a_folder_must_exist(tmp_path, make):
    with pytest.raises(ConfigError, match="--components"):
        Catalog([make(tmp_path)])


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = 1", "found none"), (SHOUT + "\nclass Two(Processor): ...", "Shout, Two"), ("1/0", "ZeroDivisionError")],
)
def test_a_file_that_is_no_component_is_a_clear_error(tmp_path, text, message):
    catalog = Catalog([folder(tmp_path, text, name=f"odd{abs(hash(text)) % 10**6}")])
    name = next(n for n in catalog.types("processors") if n.startswith("odd"))
    with pytest.raises(ConfigError, match=message):
        catalog.load("processors", name)
