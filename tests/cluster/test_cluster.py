import json
import socket
from pathlib import Path

import pytest

from medpipe import bundle, contracts
from tests.cluster.harness import session_members, standalone_cluster

PROBE = Path(__file__).with_name("probe.py")
DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}


@pytest.fixture(scope="module")
def cluster():
    with standalone_cluster() as running:
        yield running


def probe(cluster, args, py_files):
    done = cluster.submit(PROBE, args, py_files, DELTA)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_workers_without_medpipe_get_it_from_the_zip_alone(cluster, tmp_path):
    zip_file = tmp_path / "medpipe.zip"
    bundle.write_zip(zip_file)
    found = probe(cluster, [str(tmp_path / "table")], [zip_file])
    assert found["rows"] == 1000
    assert {answer["contracts"] for answer in found["answers"]} == {",".join(contracts.names())}
    assert all("medpipe.zip" in answer["place"] for answer in found["answers"])


def test_without_the_zip_a_worker_has_no_medpipe_and_stands_elsewhere(cluster):
    found = probe(cluster, [], [])
    assert {answer["contracts"] for answer in found["answers"]} == {"no medpipe"}
    assert all(answer["directory"].startswith(str(cluster.folder)) for answer in found["answers"])


def test_the_exit_code_of_a_job_comes_through(cluster, tmp_path):
    script = tmp_path / "leaves.py"
    script.write_text("import sys\nprint('said')\nsys.exit(3)\n")
    done = cluster.submit(script, [], [], {})
    assert (done.returncode, done.stdout.strip()) == (3, "said")


def test_nothing_of_a_cluster_is_left_after_a_failure():
    with pytest.raises(ZeroDivisionError), standalone_cluster() as cluster:
        port, folder = int(cluster.master.rpartition(":")[2]), cluster.folder
        assert all(session_members(daemon) for daemon in cluster.daemons)
        1 / 0  # noqa: B018
    assert not any(session_members(daemon) for daemon in cluster.daemons)
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0
    assert not folder.exists()
