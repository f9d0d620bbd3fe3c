"""Whatever a user's module does when it is imported is one message with its file and line."""

import math
import sys

import pytest

from textenv.errors import UsageError
from textenv.imports import imported


def test_what_is_there_is_imported():
    assert imported("math:pi") == math.pi


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import math\nx = undefined", r"NameError: name 'undefined' is not defined \({file}, line 2\)$"),
        ("def f(:", r"SyntaxError: .*broken_module\.py, line 1\)"),
        ("import json\n\njson.loads('')", r"JSONDecodeError: .* \({file}, line 3\)$"),
        ("raise SystemExit(3)", r"SystemExit: 3 \({file}, line 1\)$"),
        ("x = 1", r"AttributeError: .*no attribute 'reward'; expected is module:attribute"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_place(source, message, tmp_path, monkeypatch):
    file = tmp_path / "broken_module.py"
    file.write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_module", raising=False)
    with pytest.raises(UsageError, match=message.replace("{file}", str(file))):
        imported("broken_module:reward")


@pytest.mark.parametrize("name", [":x", ".a:b", "a..b:c", "nowhere:f", "math:", "math"])
def test_a_name_that_is_none_says_what_is_expected(name):
    with pytest.raises(UsageError, match="expected is module:attribute"):
        imported(name)
