"""One Spark session for the whole run, tables written as text, and a small hospital's lake."""

import os
import shutil
import tempfile
from datetime import date, datetime
from pathlib import Path

import pytest

from medpipe.session import EMBEDDED, SMALL, open_session
from tests import nights

CONF = SMALL | {
    "spark.master": "local[2,4]",
    "spark.driver.memory": "3g",
    # No second compiler for code that runs once, and room for what the first one makes: when full, it stops.
    "spark.driver.extraJavaOptions": EMBEDDED["spark.driver.extraJavaOptions"]
    + " -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m",
    # Tables of a few rows: compiling code for them takes longer than reading it out.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.constraintPropagation.enabled": "false",
    "spark.databricks.delta.writeChecksumFile.enabled": "false",
    # VACUUM lists a table in so many tasks.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
}


@pytest.fixture(scope="session")
def spark():
    folder = tempfile.mkdtemp(prefix="medpipe-tests-")
    places = {"spark.checkpoint.dir": "checkpoints", "spark.sql.warehouse.dir": "warehouse"}
    session = open_session("medpipe tests", CONF | {k: f"file://{folder}/{name}" for k, name in places.items()})
    yield session
    session.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _forget(request):
    """What a test cached, and what Delta remembers of its lake, would fill the session's memory.

    Tables it registered in the session's catalog lie in its own lake, and the next test's have the same names.
    """
    yield
    if "spark" in request.fixturenames:
        session = request.getfixturevalue("spark")
        session.catalog.clearCache()
        # Asked inside: as a query it would take a tenth of a second after each test.
        for database in session._jsparkSession.sessionState().catalog().listDatabases().mkString(",").split(","):
            if database != "default":
                session.sql(f"drop database {database} cascade")
        session._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()


@pytest.fixture(scope="session")
def table(spark):
    """A DataFrame from text: header `name type | ...`, one row per line, an empty cell is null."""

    def make(text):
        header, *lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        columns = [tuple(part.split()) for part in header.split("|")]
        rows = [[cell.strip() for cell in line.split("|")] for line in lines]
        values = [tuple(_value(cell, kind) for cell, (_, kind) in zip(row, columns, strict=True)) for row in rows]
        return spark.createDataFrame(values, ", ".join(f"{name} {kind}" for name, kind in columns))

    return make


def _value(cell, kind):
    if cell == "":
        return None
    if kind in ("int", "integer", "long", "bigint"):
        return int(cell)
    if kind in ("double", "float"):
        return float(cell)
    if kind == "boolean":
        return {"true": True, "false": False}[cell]
    if kind == "date":
        return date.fromisoformat(cell)
    if kind == "timestamp":
        return datetime.fromisoformat(cell)
    return cell


@pytest.fixture(scope="session")
def after_first_night(spark, tmp_path_factory):
    """A small hospital's lake the morning after its first night. Copy it before changing it."""
    os.environ[nights.KEY_VARIABLE] = nights.KEY
    folder = tmp_path_factory.mktemp("nights")
    found = nights.Nights(nights.simulate(folder / "hospital"), folder)
    nights.first_night(spark, found)
    return found


@pytest.fixture(scope="session")
def after_second_night(spark, after_first_night, tmp_path_factory):
    """The same a night later. Copy it before changing it."""
    found = after_first_night.copy_to(tmp_path_factory.mktemp("second"))
    nights.second_night(spark, found)
    return found


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("MEDPIPE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MEDPIPE_TEST_DATA")
    return folder
