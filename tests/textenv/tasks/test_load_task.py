"""Tasks by name."""

import pytest

from textenv import tasks
from textenv.errors import UsageError
from textenv.tasks.exact import Exact


def test_by_name_and_by_class():
    assert isinstance(tasks.load("exact"), Exact)
    assert isinstance(tasks.load("textenv.tasks.exact:Exact"), Exact)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown task 'exakt'\. Did you mean 'exact'"):
        tasks.load("exakt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such.module:Task", "could not be imported"),
        ("textenv.tasks.exact:Inexact", "could not be imported"),
        (":x", "could not be imported"),
        (".a:b", "could not be imported"),
        ("math:pi", "is no task: it lacks name"),
        ("collections:OrderedDict", "is no task: it lacks name, .*gold"),
        ("textenv.errors:TextenvError", "is no task"),
    ],
)
def test_what_is_no_task_is_said(name, message):
    with pytest.raises(UsageError, match=message):
        tasks.load(name)


def test_a_task_that_fails_is_told_with_its_file_and_line(tmp_path, monkeypatch):
    (tmp_path / "failing_task.py").write_text("class Mine:\n    def __init__(self):\n        raise KeyError('oops')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=rf"KeyError: 'oops' \({tmp_path}/failing_task.py, line 3\)"):
        tasks.load("failing_task:Mine")
