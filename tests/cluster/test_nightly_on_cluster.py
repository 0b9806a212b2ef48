"""The night by spark-submit on a cluster whose machines have no medpipe gives what it gives on one machine."""

import shutil

import pytest

from medpipe import bundle
from medpipe.jobs import nightly
from tests.cluster.harness import standalone_cluster
from tests.nights import KEY, differing

# Small tables: fewer tasks and no compiled code for plans that run once. Adaptive execution stays on, as on a cluster.
FAST = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m",
    "spark.log.level": "ERROR",
}


@pytest.mark.timeout(900)
def test_a_night_on_a_cluster_writes_the_tables_of_a_night_on_one_machine(
    after_first_night, after_second_night, spark, tmp_path
):
    found = after_first_night.copy_to(tmp_path)
    zip_file, script, key_file = (tmp_path / name for name in ("medpipe.zip", "nightly.py", "pseudonym.key"))
    bundle.write_zip(zip_file)
    shutil.copy(nightly.__file__, script)
    # No variable of medpipe's reaches the cluster: its driver reads the key from a file, as a hospital's does.
    key_file.touch(mode=0o600)
    key_file.write_text(KEY)
    flags = [*found.flags(found.as_ofs[1]), "--set", f"privacy.key=file:{key_file}"]
    flags += ["--delivery", str(found.deliveries[1])]
    (events := tmp_path / "events").mkdir()
    logged = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": events.as_uri(),
        "spark.eventLog.compress": "false",
    }
    with standalone_cluster() as cluster:
        done = cluster.submit(script, flags, [zip_file], FAST | logged, seconds=800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "score_population" in done.stdout and "not run" not in done.stdout
    log = "".join(file.read_text("utf-8", "replace") for file in events.rglob("*") if file.is_file())
    assert "SparkListenerEnvironmentUpdate" in log and str(key_file) in log and KEY not in log
    assert differing(found.tables(spark), after_second_night.tables(spark)) == []
