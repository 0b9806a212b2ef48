"""A night stopped at any of its commits and run again gives what an undisturbed night gives."""

import shutil
import signal

import pytest

from medpipe.jobs import nightly
from tests import nights
from tests.conftest import CONF
from tests.faults import crashes
from tests.nights import differing

# Scores name the version of the sequences they were made from: the one place where a table written twice shows.
TELLING = "after gold.sequence 1"
KILLS = ("before bronze.record 1", "after phi.fate 1", "after gold.score 1", "after gold.recommendation 1")


@pytest.fixture(scope="module")
def undisturbed(after_second_night, spark):
    return after_second_night.tables(spark)


@pytest.fixture(scope="module")
def killed(after_first_night, tmp_path_factory):
    """A second night killed between a commit and the ledger's row of it."""
    found = after_first_night.copy_to(tmp_path_factory.mktemp("killed"))
    kill(found, TELLING)
    return found


def kill(found, hook):
    flags = [*found.flags(found.as_ofs[1]), "--delivery", str(found.deliveries[1])]
    code, told = crashes.wait(crashes.start_night(found, flags, CONF, hook), seconds=500)
    assert code == -signal.SIGKILL, told


def test_a_night_killed_at_a_commit_and_run_again_is_as_if_undisturbed(killed, undisturbed, spark, tmp_path):
    found = killed.copy_to(tmp_path)
    nights.second_night(spark, found)
    assert differing(found.tables(spark), undisturbed) == []


@pytest.mark.faults
def test_without_the_guard_the_same_kill_shows(killed, undisturbed, spark, tmp_path):
    found = killed.copy_to(tmp_path)
    with crashes.unguarded():
        nights.second_night(spark, found)
    assert differing(found.tables(spark), undisturbed) == ["gold.score"]


@pytest.mark.faults
@pytest.mark.parametrize("hook", KILLS)
def test_it_holds_for_kills_all_over_the_night(after_first_night, undisturbed, spark, tmp_path, hook):
    found = after_first_night.copy_to(tmp_path)
    kill(found, hook)
    nights.second_night(spark, found)
    assert differing(found.tables(spark), undisturbed) == []


def sweep(spark, found, night, kept, expected):
    """hook -> tables that differ after a stop there and a rerun, for hooks where any does; says how many there were."""
    wrong = {}
    for state in kept:
        crashes.restore(state, found, spark)
        night()
        if names := differing(found.tables(spark), expected):
            wrong |= dict.fromkeys(state.hooks, names)
    print(f"{sum(len(state.hooks) for state in kept)} hooks, {len(kept)} states on disk")
    return wrong


@pytest.fixture(scope="module")
def second_night(after_first_night, spark, tmp_path_factory):
    """Where the second night runs, and its states; the folder is large, and goes."""
    folder = tmp_path_factory.mktemp("sweep")
    found = after_first_night.copy_to(folder)
    yield found, crashes.states(lambda: nights.second_night(spark, found), found, folder / "states")
    shutil.rmtree(folder)


@pytest.mark.faults
@pytest.mark.timeout(2400)
def test_a_night_stopped_before_or_after_any_commit_and_run_again_is_as_if_undisturbed(
    second_night, undisturbed, spark
):
    found, kept = second_night
    hooks = [hook for state in kept for hook in state.hooks]
    # Sixteen commits of tables in eight steps, and the ledger's row of each.
    assert len(hooks) == len(set(hooks)) >= 2 * (16 + 8)
    assert sweep(spark, found, lambda: nights.second_night(spark, found), kept, undisturbed) == {}


@pytest.mark.faults
@pytest.mark.timeout(2400)
def test_a_first_load_stopped_before_or_after_any_commit_and_run_again_is_as_if_undisturbed(
    after_first_night, spark, tmp_path
):
    """Among its commits are those that create the tables."""
    found = nights.Nights(after_first_night.hospital, tmp_path)

    def load():
        nightly.load(found.workplace(spark, found.as_ofs[0]), found.deliveries[:1])

    kept = crashes.states(load, found, tmp_path / "states")
    expected = found.tables(spark)
    assert sweep(spark, found, load, kept, expected) == {}


@pytest.mark.faults
@pytest.mark.timeout(2400)
def test_without_the_guard_the_sweep_fails_where_a_table_was_written_and_not_yet_told(second_night, undisturbed, spark):
    found, kept = second_night
    near = [state for state in kept if any(" gold." in hook for hook in state.hooks)]

    def night():
        with crashes.unguarded():
            nights.second_night(spark, found)

    wrong = sweep(spark, found, night, near, undisturbed)
    assert TELLING in wrong and set(map(tuple, wrong.values())) == {("gold.score",)}
