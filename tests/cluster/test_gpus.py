"""Executors that have GPUs, by a discovery script that says so: which task gets one, and what it does without CUDA."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest
import torch

from tests.nights import differing

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def conf(tmp_path):
    """Two executors of one core and one GPU each; no task asks for one by itself."""
    script = tmp_path / "gpus.sh"
    script.write_text("""#!/bin/sh\necho '{"name": "gpu", "addresses": ["0"]}'\n""")
    script.chmod(0o755)
    return {
        "spark.master": "local-cluster[2,1,1024]",
        "spark.executor.memory": "1g",
        "spark.driver.memory": "1g",
        "spark.worker.resource.gpu.amount": "1",
        "spark.worker.resource.gpu.discoveryScript": str(script),
        "spark.executor.resource.gpu.amount": "1",
        "spark.executor.resource.gpu.discoveryScript": str(script),
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.sql.codegen.wholeStage": "false",
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU that the script promises")
def test_a_scoring_task_gets_a_gpu_and_says_what_it_cannot_do_with_it(after_second_night, spark, tmp_path, conf):
    found = after_second_night.copy_to(tmp_path)
    flags = [*found.flags(found.as_ofs[1]), "--log", os.devnull]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "PYSPARK_"))}
    environment |= {"SPARK_HOME": str(Path(pyspark.__file__).parent), "MEDPIPE_SPARK": json.dumps(conf)}
    command = [sys.executable, "-m", "tests.cluster.gpus", *flags]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    # Left to itself it scores on the CPU, the same; where a GPU is demanded it stops.
    assert told["auto"] == [0, ""]
    assert differing(found.tables(spark), after_second_night.tables(spark)) == []
    code, line = told["gpu"]
    assert code == 6 and "NO_GPU: Spark gave this task GPU 0, torch sees 0" in line
