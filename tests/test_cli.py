import ast
import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from medpipe import bundle, cli, contracts, show


def test_help_names_every_command_with_what_it_does(capsys):
    assert cli.main([]) == cli.main(["--help"]) == 0
    lines = {
        line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")
    }
    assert set(lines) == set(cli.COMMANDS)
    assert all(lines.values())


def test_help_needs_neither_spark_nor_torch():
    code = "import sys; from medpipe import cli; cli.main([]); sys.exit(bool({'pyspark', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("place", [place for place, _ in cli.COMMANDS.values()])
def test_every_command_has_a_function_behind_it(place):
    module, _, name = place.partition(":")
    source = Path(find_spec(module).origin).read_text()
    assert name in {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def test_simulate_writes_the_asked_hospital(tmp_path, capsys):
    assert cli.main(["simulate", "--patients", "30", "--nights", "3", "--out", str(tmp_path / "hospital")]) == 0
    assert len(list((tmp_path / "hospital" / "deliveries").iterdir())) == 3
    assert "3 deliveries of a hospital of 30 patients" in capsys.readouterr().out


def test_a_hospital_that_cannot_be_exits_2(tmp_path, capsys):
    assert cli.main(["simulate", "--patients", "0", "--out", str(tmp_path / "hospital")]) == 2
    assert "BAD_HOSPITAL: num_patients is 0; expected 1 to" in capsys.readouterr().err


def test_an_unknown_command_exits_2_with_the_known_ones(capsys):
    assert cli.main(["scores"]) == 2
    assert capsys.readouterr().err.startswith("medpipe: UNKNOWN_COMMAND: no command 'scores'; expected one of demo, ")


def test_run_lists_every_job_with_the_first_line_of_its_docstring(capsys):
    assert cli.main(["run"]) == 0
    assert "  ingest_records " in capsys.readouterr().out
    assert all(cli.jobs().values())


def test_an_unknown_job_exits_2_with_the_known_ones(capsys):
    assert cli.main(["run", "ingest"]) == 2
    assert "UNKNOWN_JOB: no job 'ingest'; expected one of build_cohort," in capsys.readouterr().err


def test_the_data_dictionary_names_every_table(capsys):
    assert cli.main(["tables"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == contracts.names()


def test_a_table_is_shown_with_columns_checks_key_and_partition(capsys):
    assert cli.main(["tables", "gold.patient_similarity"]) == 0
    shown = capsys.readouterr().out
    columns = contracts.load("gold.patient_similarity").struct
    assert all(field.name in shown and field.metadata["comment"] in shown for field in columns)
    assert re.search("BAD_SIMILARITY +similarity > 0 and similarity <= 1", shown)
    assert "A row is named by: as_of, patient_id, rank" in shown


def test_an_unknown_table_exits_4(capsys):
    assert cli.main(["tables", "gold.scores"]) == 4
    assert capsys.readouterr().err.startswith("medpipe: UNKNOWN_TABLE")


def test_a_new_key_is_private_and_never_overwritten(tmp_path, capsys):
    path = tmp_path / "key"
    assert cli.main(["new-key", str(path)]) == 0
    first = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert first.strip() not in capsys.readouterr().out
    assert cli.main(["new-key", str(path)]) == 2
    assert path.read_text() == first


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("select * from gold.score", ["gold.score"]),
        ("SELECT * FROM GOLD.SCORE s join silver.patient p using (patient_id)", ["gold.score", "silver.patient"]),
        ("select * from gold.current_score", ["gold.current_score", "gold.score"]),
        ("select 'gold.scores' as no_table", []),
    ],
)
def test_a_query_opens_only_the_tables_it_names(query, named):
    assert show.named_in(query) == named


def test_the_zip_holds_the_code_the_jobs_and_the_contracts_and_is_the_same_each_time(tmp_path):
    for name in ("a.zip", "b.zip"):
        bundle.write_zip(tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    held = set(zipfile.ZipFile(tmp_path / "a.zip").namelist())
    assert {"medpipe/cli.py", "medpipe/jobs/ingest_records.py", "medpipe/schemas/gold/score.toml"} <= held


def test_medpipe_runs_from_the_zip_as_from_the_install(tmp_path):
    bundle.write_zip(tmp_path / "medpipe.zip")
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()];"
        f"sys.path.insert(0, {str(tmp_path / 'medpipe.zip')!r});"
        "import pathlib; from medpipe import bundle, cli; assert '.zip' in cli.__file__;"
        f"cli.main(['run']); bundle.write_zip(pathlib.Path({str(tmp_path / 'again.zip')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ingest_records" in done.stdout
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "medpipe.zip").read_bytes()
