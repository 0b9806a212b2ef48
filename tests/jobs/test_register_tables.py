import subprocess
import sys
from pathlib import Path

from medpipe.tables import Lake

MEDPIPE = Path(sys.executable).with_name("medpipe")
CONFIG = """
lake = "{folder}/lake"
[spark]
"spark.master" = "local[2,4]"
"spark.driver.memory" = "1g"
"spark.sql.catalogImplementation" = "hive"
"spark.sql.warehouse.dir" = "{folder}/warehouse"
"spark.hadoop.javax.jdo.option.ConnectionURL" = "jdbc:derby:;databaseName={folder}/metastore;create=true"
"""
SCORE = """
    as_of date | recipe string | patient_id string | score float | model_sha256 string | feature_version long | device string
    2026-01-30 | risk_gru      | ann               | 0.25        | m1                  | 1                    | cpu
    2026-01-31 | risk_gru      | ann               | 0.5         | m1                  | 2                    | cpu
"""  # noqa: E501
# Another application of the hospital: it knows the metastore, and nothing of medpipe's folders.
ASK = """
import sys
from pathlib import Path
from medpipe import settings
from medpipe.session import open_session
spark = open_session("engineer", settings.load(Path(sys.argv[1]), {}).spark)
print("score", spark.sql("select score from gold.current_score").first().score)
"""


def test_another_session_queries_the_registered_tables_by_name(spark, table, tmp_path):
    Lake(spark, str(tmp_path / "lake"), str(tmp_path / "lake-phi")).for_run("run1").append(table(SCORE), "gold.score")
    config = tmp_path / "hospital.toml"
    config.write_text(CONFIG.format(folder=tmp_path))
    registered = subprocess.run([MEDPIPE, "register", "--config", config], cwd=tmp_path, capture_output=True, text=True)
    assert registered.returncode == 0, registered.stderr[-2000:]
    assert registered.stdout.split() == ["gold.score", "gold.current_score"]
    asked = subprocess.run([sys.executable, "-c", ASK, config], cwd=tmp_path, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr[-2000:]
    assert asked.stdout.splitlines()[-1] == "score 0.5"
