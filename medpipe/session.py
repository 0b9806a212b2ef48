"""The Spark session: Delta on, UTC, no silent loss. The only place that chooses a master or a JAR."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession

from medpipe.errors import MissingEnvironmentError

DELTA_VERSION = "4.0.1"
JARS = (
    ("io.delta", "delta-spark_2.13", DELTA_VERSION),
    ("io.delta", "delta-storage", DELTA_VERSION),
    ("org.antlr", "antlr4-runtime", "4.13.1"),
)

REQUIRED = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # Spark's default INT96 wraps dates outside 1677-2262 when read by pyarrow 14.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",
    # HotSpot never compiles a method of more bytecode; Spark's own limit is eight times that.
    "spark.sql.codegen.hugeMethodLimit": "8000",
    # Else PySpark looks for the line that names each column and tells the JVM: twice the time to build a plan.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
}

LOG_SETTINGS = Path(__file__).with_name("log4j2.properties")

# For a run without spark-submit: one machine, small tables possible, a failed task is tried again.
EMBEDDED = {
    "spark.master": "local[*,4]",
    "spark.driver.memory": "4g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "16",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # What fails in a task is told once, by the exception; Spark's own log would print rows.
    "spark.log.level": "OFF",
    # The collector that leaves the cores to the work.
    "spark.driver.extraJavaOptions": f"-XX:+UseParallelGC -Dlog4j2.configurationFile={LOG_SETTINGS.as_uri()}",
    # Left to itself Spark would make these folders wherever the user happens to stand.
    "spark.sql.warehouse.dir": f"file://{tempfile.gettempdir()}/medpipe-warehouse-{os.getuid()}",
}

# For a hospital whose tables each fit one task: what Spark does to plan for more takes longer than the work.
SMALL = {
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.adaptive.enabled": "false",
    "spark.databricks.delta.snapshotPartitions": "1",
    # Code compiled for each expression runs once or a few times; read out, it is done sooner.
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


def open_session(name: str, conf: dict[str, str]) -> SparkSession:
    """The running session, or a new one: under spark-submit its master and memory hold, else this machine's cores.

    Args:
        name: application name.
        conf: settings that win over medpipe's own.
    Raises:
        MissingEnvironmentError: NO_JAVA, NO_DELTA_JARS.
    """
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    active = SparkSession.getActiveSession()
    if active is not None:
        # A notebook's or a cluster's own session: times must mean the same in it.
        for key in ("spark.sql.session.timeZone", "spark.sql.parquet.outputTimestampType"):
            active.conf.set(key, REQUIRED[key])
        return active
    settings = dict(REQUIRED)
    if not submitted:
        if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
            raise MissingEnvironmentError("NO_JAVA", "no java on the PATH; install Java 17 or 21 or set JAVA_HOME")
        # The workers run the driver's interpreter.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        settings |= EMBEDDED | delta_jars()
    builder = SparkSession.builder.appName(name)
    for key, value in (settings | conf).items():
        builder = builder.config(key, value)
    try:
        spark = builder.getOrCreate()
    except Exception as failure:
        raise MissingEnvironmentError(
            "NO_SPARK", f"Spark did not start ({type(failure).__name__}). {_jar_help()}"
        ) from None
    _require_delta(spark)
    return spark


def delta_jars() -> dict[str, str]:
    """Where the embedded session takes Delta's JARs from: MEDPIPE_DELTA_JARS, the resolver's cache, or the resolver."""
    folder = os.environ.get("MEDPIPE_DELTA_JARS")
    if folder:
        files = [next(Path(folder).glob(f"{name}-{version}.jar"), None) for _, name, version in JARS]
        if None in files:
            raise MissingEnvironmentError("NO_DELTA_JARS", f"MEDPIPE_DELTA_JARS={folder} lacks one. {_jar_help()}")
        return {"spark.jars": ",".join(str(file) for file in files)}
    cached = [Path.home() / ".ivy2.5.2" / "jars" / f"{group}_{name}-{version}.jar" for group, name, version in JARS]
    if all(file.is_file() for file in cached):
        return {"spark.jars": ",".join(str(file) for file in cached)}
    return {"spark.jars.packages": ":".join(JARS[0])}


def _require_delta(spark: SparkSession) -> None:
    try:
        spark._jvm.java.lang.Class.forName(
            "io.delta.sql.DeltaSparkSessionExtension",
            True,
            spark._jvm.java.lang.Thread.currentThread().getContextClassLoader(),
        )
    except Exception:
        spark.stop()
        raise MissingEnvironmentError("NO_DELTA_JARS", f"Delta is not on Spark's class path. {_jar_help()}") from None


def _jar_help() -> str:
    files = ", ".join(f"{name}-{version}.jar" for _, name, version in JARS)
    return (
        f"Needed: {files}. Give them by a folder in MEDPIPE_DELTA_JARS, by spark.jars (or spark-submit --jars), "
        f"or let Spark fetch them: --packages {':'.join(JARS[0])} (needs a registry or spark.jars.ivySettings)"
    )
