import ctypes
import dataclasses
import os
import signal
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from medpipe import checkpoints, recipes
from medpipe.errors import DataError, MissingEnvironmentError
from medpipe.recipes import RISK_GRU, Trained
from medpipe.score import isolation
from medpipe.score.isolation import Isolated
from medpipe.score.scorer import Scorer
from tests.score.test_scorer import ROWS, VOCABULARY, histories


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def segmentation_fault():
    ctypes.string_at(0)


def deadly(encoded, rows, config, deaths, mark=None):
    """The recipe's inputs; whoever makes them for all patients of a group dies, with a mark: until it is there."""
    for patients, death in deaths.items():
        if set(patients) <= set(encoded.ids[rows]) and not (mark and Path(mark).exists()):
            if mark:
                Path(mark).touch()
            death()
    return recipes.sequence_inputs(encoded, rows, config)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint with random weights: its folder and name."""
    torch.manual_seed(0)
    config = RISK_GRU.config(VOCABULARY, None)
    trained = Trained("risk_gru", config, RISK_GRU.build(config).state_dict(), VOCABULARY, RISK_GRU.form)
    store = str(tmp_path_factory.mktemp("models"))
    saved = checkpoints.save(store, trained, {}, {}, {})
    return f"{store}/{saved.folder}", saved.sha256


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """A plan of one shard with 300 patients, of whom p00007 cannot be encoded."""
    rows = histories(300)
    rows[7] = ("p00007", [], [], [])
    columns = [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), ROWS, strict=True)]
    path = str(tmp_path_factory.mktemp("table") / "part-0.parquet")
    pq.write_table(pa.Table.from_arrays(columns, schema=ROWS), path)
    return pa.RecordBatch.from_pylist([{"shard_id": 0, "url": path, "row_groups": [0], "num_rows": 300}])


@pytest.fixture
def scorer(model):
    """Of a recipe that dies of groups of patients; batches of 100 patients, forward passes of 256."""
    folder, sha256 = model

    def make(deaths=None, mark=None, sha256=sha256):
        inputs = partial(deadly, deaths=deaths or {}, mark=mark)
        recipe = dataclasses.replace(RISK_GRU, batch_rows=100, inputs=inputs)
        return Scorer(recipe, sha256, partial(checkpoints.load, folder, sha256))

    return make


def scored(call, shard):
    rows = pa.Table.from_batches(call(iter([shard]))).to_pylist()
    found = {row["row_id"]: (row["score"], row["code"], row["device"]) for row in rows}
    assert len(found) == len(rows) == 300
    return found


def test_rows_that_kill_get_a_code_and_all_others_the_bits_they_have_without_them(scorer, shard):
    deaths = {("p00003",): killed, ("p00004",): segmentation_fault, ("p00250",): segmentation_fault}
    whole = scored(scorer(), shard)
    found = scored(Isolated(scorer(deaths)), shard)
    killing = {patient: row for patient, row in found.items() if row[1] == "KILLED_WORKER"}
    assert killing == dict.fromkeys(["p00003", "p00004", "p00250"], (None, "KILLED_WORKER", None))
    assert found == whole | killing and found["p00007"][1] == "EMPTY"


def test_a_row_whose_process_died_once_only_is_scored(scorer, shard, tmp_path):
    found = scored(Isolated(scorer({("p00003",): killed}, mark=str(tmp_path / "it-died"))), shard)
    assert (tmp_path / "it-died").exists()
    assert found == scored(scorer(), shard)


def dying_at_first(batch, deaths, counted):
    """The batch; with the number 3 in it the process dies so many times, counted in a file."""
    died = len(counted.read_bytes()) if counted.exists() else 0
    if 3 in batch.column(0).to_pylist() and died < deaths:
        with counted.open("ab") as file:
            file.write(b".")
        killed()
    return [batch]


# Of eight rows the whole, its half, its quarter and the row itself are asked for, and the row once more.
@pytest.mark.parametrize(("deaths", "found"), [(3, []), (4, []), (5, [3])])
def test_a_row_is_blamed_only_if_the_process_dies_of_it_twice(tmp_path, deaths, found):
    batch = pa.record_batch([pa.array(range(8))], ["number"])
    function = partial(dying_at_first, deaths=deaths, counted=tmp_path / "deaths")
    with isolation.Child(partial(lambda function: function, function)) as child:
        assert isolation.killers(child, batch) == found


def test_a_batch_of_which_many_rows_kill_is_not_searched_to_its_end(scorer, shard, monkeypatch):
    monkeypatch.setattr(isolation, "MAX_KILLERS", 1)
    deaths = {(f"p{i:05d}",): killed for i in range(300)}
    with pytest.raises(DataError, match="SHARD_KILLS_WORKER: .*part-0.parquet, row groups 0: more than 1 rows of one"):
        scored(Isolated(scorer(deaths)), shard)


def test_rows_that_kill_only_together_fail_the_shard(scorer, shard):
    with pytest.raises(DataError, match="SHARD_KILLS_WORKER: .*, row groups 0: rows that kill no process alone do so"):
        scored(Isolated(scorer({("p00003", "p00090"): killed})), shard)


def test_what_the_scorer_raises_is_raised(scorer, shard):
    with pytest.raises(MissingEnvironmentError, match="WEIGHTS_CHANGED: .* has sha256 .*, registered is 0000"):
        scored(Isolated(scorer(sha256="0" * 64)), shard)
