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


@pytest.mark.parametrize("name", ["no.such.module:Task", "textenv.tasks.exact:Inexact"])
def test_what_cannot_be_imported_is_said(name):
    with pytest.raises(UsageError, match="could not be imported"):
        tasks.load(name)
