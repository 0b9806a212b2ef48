"""A hundred thousand patients are scored while workers, executors and drivers die: the same bits, nobody twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from pyspark.sql import functions as F

from medpipe.jobs import score_population
from tests import nights
from tests.conftest import CONF
from tests.faults import crashes

COPIES = 1000
KINDS = ["worker"] * 6 + ["executor"] * 4 + ["driver"] * 6 + ["row"] * 4 + ["segfault"] * 2
SCORING = ["score.shard_rows=4000", "score.tasks_per_part=2"]
CLUSTER = {"spark.master": "local-cluster[2,1,1024]", "spark.executor.memory": "1g", "spark.driver.memory": "1g"}


@pytest.fixture(scope="module")
def population(after_second_night, spark, tmp_path_factory):
    """The second night's lake with each of its patients a thousand times, not scored yet."""
    found = after_second_night.copy_to(tmp_path_factory.mktemp("population"))
    work = found.workplace(spark, found.as_ofs[1])
    lake, here = work.lake, {"as_of": found.as_ofs[1], "role": "apply"}
    rows = lake.for_run("").read("gold.sequence", found.as_ofs[1], {"role": "apply"}).drop("run_id")
    many = rows.crossJoin(spark.range(COPIES)).withColumn("patient_id", F.sha2(F.concat("patient_id", "id"), 256))
    lake.for_run("population").replace(many.drop("id").repartition(8), "gold.sequence", where=here)
    return found


def scored(found, spark):
    lake = found.workplace(spark, found.as_ofs[1]).lake
    rows = lake.for_run("").read("gold.score", found.as_ofs[1]).select("patient_id", "score").collect()
    return sorted(map(tuple, rows))


def flags(found):
    return found.flags(found.as_ofs[1]) + [flag for pair in SCORING for flag in ("--set", pair)]


@pytest.fixture(scope="module")
def undisturbed(population, spark, tmp_path_factory):
    """The scores of all, and how many seconds they took once scoring had begun."""
    found = population.copy_to(tmp_path_factory.mktemp("undisturbed"))
    begun = []
    with crashes.hooked(lambda hook: begun.append(time.monotonic()) if hook == "before ops.scored 1" else None):
        assert score_population.main(flags(found)) == 0
    seconds = time.monotonic() - begun[0]
    expected = scored(found, spark)
    assert len(expected) == len({row[0] for row in expected}) >= 100_000
    return expected, seconds


@pytest.mark.faults
@pytest.mark.parametrize("number", range(len(KINDS)), ids=lambda number: f"{number}-{KINDS[number]}")
def test_scores_are_the_same_bits_whatever_dies(population, undisturbed, spark, tmp_path, number):
    expected, seconds = undisturbed
    kind, found, mark = KINDS[number], population.copy_to(tmp_path), tmp_path / "it-died"
    delay = random.Random(number).uniform(0, 0.8) * seconds
    conf = CONF | (CLUSTER if kind == "executor" else {})
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "PYSPARK_"))}
    environment |= {"MEDPIPE_SPARK": json.dumps(conf), "PYTHONPATH": str(crashes.REPOSITORY)}
    command = [sys.executable, "-m", "tests.faults.killed_scoring", kind, str(delay), str(mark), *flags(found)]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "stdin": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=crashes.REPOSITORY, env=environment, start_new_session=True, **quiet)
    code, told = crashes.wait(process, seconds=300)
    assert mark.exists(), told
    assert code == (-signal.SIGKILL if kind == "driver" else 0), told
    if kind == "driver":
        assert score_population.main(flags(found)) == 0
    assert scored(found, spark) == expected
    assert nights.content(found.workplace(spark, found.as_ofs[1]).lake, "ops.scored") == []
