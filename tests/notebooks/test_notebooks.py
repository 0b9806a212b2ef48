import json
import sys
from pathlib import Path

import matplotlib
import nbformat
import pytest
from nbmake.nb_run import NotebookRun

from medpipe import catalog
from medpipe.tables import Lake
from tests.conftest import CONF

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SCORES, RECOMMENDATIONS = NOTEBOOKS
SMALL_SESSION = CONF | {"spark.driver.memory": "1g"}


@pytest.fixture
def kernel_here(tmp_path, monkeypatch):
    """`python3` is the interpreter of the tests, whatever kernels this machine's user has."""
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    told = {"argv": command, "display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(told))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("MEDPIPE_SPARK", json.dumps(SMALL_SESSION))


def run_inside(spark, cells: list[str]) -> dict:
    """Code cells in this process and on its session, as in a notebook that is given `spark`; returns their names."""
    names = {"spark": spark}
    for cell in cells:
        exec(cell.replace("%matplotlib inline", ""), names)
    return names


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert cells
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


def test_the_scores_are_drawn_from_a_lake_in_a_kernel_of_its_own(after_second_night, kernel_here, monkeypatch):
    monkeypatch.setenv("MEDPIPE_LAKE", str(after_second_night.folder / "lake"))
    result = NotebookRun(SCORES, default_timeout=240).execute()
    assert result.error is None, result.error.trace
    outputs = [output for cell in result.nb.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert len(pictures) == 6
    assert "not written yet" not in printed and "no rows" not in printed


def test_a_lake_that_has_only_its_cohort_is_told_of_and_drawn(after_second_night, spark, tmp_path, monkeypatch, capsys):
    (tmp_path / "lake" / "gold").mkdir(parents=True)
    (tmp_path / "lake" / "gold" / "cohort").symlink_to(after_second_night.folder / "lake" / "gold" / "cohort")
    monkeypatch.setenv("MEDPIPE_LAKE", str(tmp_path / "lake"))
    matplotlib.use("agg")
    names = run_inside(spark, code_of(SCORES))
    assert len(names["cohort"]) > 0 and names["scores"].empty
    printed = capsys.readouterr().out
    for table in ("gold.current_score", "gold.model_metric", "gold.recommendation", "gold.patient_similarity"):
        assert f"{table}: not written yet" in printed


def test_the_first_cell_takes_the_session_and_the_registered_tables_it_finds(after_second_night, spark, monkeypatch):
    monkeypatch.delenv("MEDPIPE_LAKE", raising=False)
    folder = after_second_night.folder
    lake = Lake(spark, str(folder / "lake"), str(folder / "lake-phi"))
    catalog.register(lake, ["gold.cohort", "gold.score"])
    names = run_inside(spark, code_of(SCORES)[:1])
    assert names["spark"] is spark
    assert spark.sql("select count(*) as rows from gold.score").first().rows > 0


def test_the_recommendations_are_drawn_from_a_lake(after_second_night, spark, monkeypatch, capsys):
    monkeypatch.setenv("MEDPIPE_LAKE", str(after_second_night.folder / "lake"))
    matplotlib.use("agg")
    names = run_inside(spark, code_of(RECOMMENDATIONS))
    assert set(names["lists"]["path"]) <= {"history", "features"} and names["lists"]["treatments_listed"].sum() > 0
    drawn = ("force", "stopped", "carried", "places", "metrics")
    assert [name for name in drawn if names[name].empty] == []
    assert "not written yet" not in capsys.readouterr().out
