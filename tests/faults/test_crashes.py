"""A night stopped at each of its commits and run again gives what an undisturbed night gives."""

import shutil

import pytest

from medpipe.tables import Lake
from tests import nights


class Stopped(BaseException):
    """Not an Exception: nothing in a job may catch it and write on, as nothing can after a kill."""


def stop_at(monkeypatch, hook):
    """The night dies at its hook-th hook; two hooks a commit, before and after. Gives the number of hooks passed."""
    passed = []
    commit = Lake._commit

    def counted(self, name, write):
        for step in (lambda: None, lambda: commit(self, name, write)):
            step()
            passed.append(name)
            if len(passed) == hook:
                raise Stopped(name)

    monkeypatch.setattr(Lake, "_commit", counted)
    return passed


def interrupted(nights_, spark, monkeypatch, hook):
    with monkeypatch.context() as patched:
        passed = stop_at(patched, hook)
        try:
            nights.second_night(spark, nights_)
        except Stopped:
            return passed
    return passed


@pytest.fixture(scope="module")
def undisturbed(after_second_night, spark):
    return after_second_night.tables(spark)


def rerun(after_first_night, spark, tmp_path, monkeypatch, hook):
    """Tables after a night stopped at a hook and run again."""
    folder = tmp_path / f"stopped-{hook}"
    found = after_first_night.copy_to(folder)
    interrupted(found, spark, monkeypatch, hook)
    nights.second_night(spark, found)
    tables = found.tables(spark)
    shutil.rmtree(folder)
    return tables


@pytest.mark.parametrize("hook", [5, 24])
def test_a_night_stopped_at_a_commit_and_run_again_is_as_if_undisturbed(
    after_first_night, undisturbed, spark, tmp_path, monkeypatch, hook
):
    tables = rerun(after_first_night, spark, tmp_path, monkeypatch, hook)
    for name in undisturbed:
        assert tables[name] == undisturbed[name], name
