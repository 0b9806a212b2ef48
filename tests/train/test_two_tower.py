import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from medpipe.models.two_tower import TwoTower as Module
from medpipe.models.two_tower import TwoTowerConfig
from medpipe.recommend.histories import to_batch
from medpipe.recommend.two_tower import TwoTower
from medpipe.stream.shards import ShardFile, plan
from medpipe.train.two_tower import TwoTowerSettings, fit_two_tower, read_bags
from tests.recommend.drawn import NUM_FEATURES, NUM_TREATMENTS, drawn

SETTINGS = TwoTowerSettings(dim=8, num_epochs=15, batch_size=32)


def shards(folder, batch, num_files):
    files = []
    for number in range(num_files):
        path = folder / f"part-{num_files}-{number}.parquet"
        pq.write_table(pa.Table.from_batches([batch.take(pa.array(range(number, batch.num_rows, num_files)))]), path)
        files.append(ShardFile(str(path), path.stat().st_size, (pq.read_metadata(path).num_rows,)))
    return plan(files, 100)


def test_towers_trained_from_shards_of_any_layout_are_the_same_and_find_what_patients_alike_have(tmp_path):
    histories = drawn(200, seed=1)
    bags = read_bags(shards(tmp_path, to_batch(histories), 1))
    assert len(bags.treatments) == histories.had.nnz
    one, other = (
        fit_two_tower(found, NUM_TREATMENTS, NUM_FEATURES, SETTINGS)
        for found in (bags, read_bags(shards(tmp_path, to_batch(histories), 3)))
    )
    assert all((one[name] == other[name]).all() for name in one)
    new = drawn(80, seed=2)
    model = TwoTower(**one)
    scores = model.scores(new)
    had = new.had.toarray() > 0
    popular = histories.had.getnnz(axis=0)
    known = had.any(axis=1)

    def rank_of_had(scores):
        places = np.argsort(np.argsort(-scores, axis=1), axis=1)
        return places[known][had[known]].mean()

    assert rank_of_had(scores) < 0.9 * rank_of_had(np.tile(popular, (80, 1)))
    items = np.argsort(-scores, axis=1)[:, :5]
    totals = model.parts(new, items).totals(new)
    assert np.abs(totals - np.take_along_axis(scores, items, axis=1)).max() < 1e-9


def test_numpy_gives_the_logits_of_the_module():
    torch.manual_seed(3)
    module = Module(TwoTowerConfig(NUM_TREATMENTS, NUM_FEATURES, 5))
    new = drawn(20, seed=4)
    given = [
        torch.from_numpy(array.astype(np.int64))
        for matrix in (new.had, new.features)
        for array in (matrix.indices, matrix.indptr[:-1])
    ]
    state = {name: tensor.double().numpy() for name, tensor in module.state_dict().items()}
    model = TwoTower(
        state["by_treatment.weight"],
        state["by_feature.weight"],
        state["everybody"],
        state["of_treatments.weight"],
        state["of_treatments.bias"],
    )
    assert np.abs(module(*given).detach().numpy() - model.scores(new)).max() < 1e-5
