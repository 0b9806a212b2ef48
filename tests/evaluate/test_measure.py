import numpy as np
import pytest
from pyspark.sql import functions as F
from scipy import sparse

from medpipe.evaluate.lists import best_left, measured
from medpipe.evaluate.measure import HELD, Judged, figures, measure
from medpipe.recommend.gram import gram
from medpipe.recommend.histories import Histories, to_batch
from medpipe.recommend.linear import EaseSettings, ease, popularity
from medpipe.recommend.population import InMemory
from tests.recommend.drawn import NUM_FEATURES, NUM_TREATMENTS, drawn


def split(histories):
    """(histories without the last treatment of each, that treatment)."""
    had = histories.had.toarray()
    later = np.zeros_like(had)
    for row in np.flatnonzero(had.any(axis=1)):
        column = np.flatnonzero(had[row])[-1]
        later[row, column], had[row, column] = 1, 0
    return Histories(histories.patient_ids, sparse.csr_matrix(had), histories.features), sparse.csr_matrix(later)


def test_every_model_is_measured_on_the_same_patients_and_compared_one_by_one(spark):
    known, later = split(drawn(100, seed=7))
    counted = gram(InMemory(known))
    models = {"popularity": popularity(counted), "ease": ease(counted, EaseSettings(20))}
    share = np.diag(counted.treatments) / counted.num_patients
    interacts = np.zeros((NUM_TREATMENTS, NUM_TREATMENTS), bool)
    interacts[:3, 3:] = interacts[3:, :3] = True
    judged = Judged(models, share, interacts, NUM_FEATURES, top_k=4)
    held = to_batch(known).to_pylist()
    for row, columns in zip(held, np.split(later.indices, later.indptr[1:-1]), strict=True):
        row["later"] = columns.tolist()
    held = spark.createDataFrame(held, HELD).repartition(2)
    rows = measure(held, judged).withColumn("split", F.lit("random")).persist()
    groups = [(name, group) for name in known.patient_ids.to_pylist() for group in ("all",)]
    groups += [("p00001", "sex=rare"), *((f"p{n:05}", "sex=female") for n in range(1, 60))]
    groups = spark.createDataFrame(groups, "patient_id string, subgroup string")
    found = {(r.model, r.subgroup, r.metric): r for r in figures(rows, groups, "popularity", judged).collect()}
    wanted = {}
    for name, model in models.items():
        items = best_left(model.scores(known), known.had, 4)
        wanted[name] = measured(items, later)[:, 0]
        assert found[(name, "all", "ndcg_at_4")].value == pytest.approx(np.nanmean(wanted[name]))
        listed = items[np.diff(later.indptr) > 0]
        assert found[(name, "all", "popularity_at_4")].value == pytest.approx(share[listed].mean())
        assert found[(name, "all", "coverage_at_4")].value == len(np.unique(listed)) / NUM_TREATMENTS
        pairs = [interacts[np.ix_(row, row)][np.triu_indices(4, 1)].mean() for row in listed]
        assert found[(name, "all", "interactions_at_4")].value == pytest.approx(np.mean(pairs))
    gain = found[("ease", "all", "ndcg_at_4_above_popularity")]
    difference = (wanted["ease"] - wanted["popularity"])[np.diff(later.indptr) > 0]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    assert gain.num_patients == len(difference) == np.isfinite(wanted["ease"]).sum()
    assert (gain.low, gain.high) == pytest.approx(
        (difference.mean() - 1.959964 * error, difference.mean() + 1.959964 * error)
    )
    assert ("popularity", "all", "ndcg_at_4_above_popularity") not in found
    groups_told = {group for _, group, _ in found}
    assert groups_told == {"all", "sex=female"}
    # Of a subgroup the coverage is that of its own lists, everybody in it counted once.
    women = np.flatnonzero((np.diff(later.indptr) > 0) & (np.arange(100) >= 1) & (np.arange(100) < 60))
    items = best_left(models["ease"].scores(known), known.had, 4)[women]
    covered = found[("ease", "sex=female", "coverage_at_4")]
    assert (covered.value, covered.num_patients) == (len(np.unique(items)) / NUM_TREATMENTS, len(women))
