"""Every model's lists on the same held-out treatments: one pass over the patients, and the table of figures.

K places of a list.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from medpipe.evaluate.lists import JACCARD, NOTHING, best_left, measured
from medpipe.evaluate.ranking import means
from medpipe.recommend.histories import HISTORIES, Histories, of_batch
from medpipe.recommend.parts import Model

# What `measure` reads: histories without what is held out, and the columns of that.
HELD = f"{HISTORIES}, later array<int>"
MEASURED = (
    "patient_id string, model string, ndcg double, recall double, average_precision double, jaccard double, "
    "popularity double, interactions double, listed array<int>"
)


@dataclass(frozen=True)
class Judged:
    """What lists are measured against.

    Attributes:
        models: name -> fitted model; all see the same patients.
        share: float64 (M,), of the known patients who have each treatment.
        interacts: bool (M, M), symmetric: pairs that interact; none where no table of interactions is at hand.
        num_features: N.
        top_k: K.
    """

    models: dict[str, Model]
    share: np.ndarray
    interacts: np.ndarray | None
    num_features: int
    top_k: int = 10


@dataclass(frozen=True)
class _Measure:
    """For mapInArrow over HELD."""

    judged: Judged

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        torch.set_num_threads(1)  # Spark has given this task one core
        num_treatments = len(self.judged.share)
        for batch in batches:
            histories, wanted = held_of(batch, num_treatments, self.judged.num_features)
            for name, model in self.judged.models.items():
                items = best_left(model.scores(histories), histories.had, self.judged.top_k)
                yield self._rows(histories.patient_ids, name, items, measured(items, wanted))

    def _rows(self, patient_ids: pa.Array, name: str, items: np.ndarray, found: np.ndarray) -> pa.RecordBatch:
        is_listed = items != NOTHING
        lengths = is_listed.sum(axis=1)
        with np.errstate(invalid="ignore"):
            popularity = (self.judged.share[items] * is_listed).sum(axis=1) / lengths
        listed = pa.ListArray.from_arrays(
            pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), pa.array(items[is_listed], pa.int32())
        )
        arrays = [patient_ids, pa.array([name] * len(items)), *found[:, : JACCARD + 1].T, popularity]
        arrays = [pa.array(array, from_pandas=True) for array in (*arrays, self._interacting(items))]
        names = [part.split()[0] for part in MEASURED.split(", ")]
        return pa.RecordBatch.from_arrays([*arrays, listed], names=names)

    def _interacting(self, items: np.ndarray) -> np.ndarray:
        """float64 (B,): the share of a list's pairs that interact; NaN without a table, or for a list of one."""
        if self.judged.interacts is None:
            return np.full(len(items), np.nan)
        first, second = np.triu_indices(items.shape[1], 1)
        is_pair = (items[:, first] != NOTHING) & (items[:, second] != NOTHING)
        hits = self.judged.interacts[items[:, first], items[:, second]] & is_pair
        with np.errstate(invalid="ignore"):
            return hits.sum(axis=1) / is_pair.sum(axis=1)


def held_of(batch: pa.RecordBatch, num_treatments: int, num_features: int) -> tuple[Histories, sparse.csr_matrix]:
    """(histories, (B, M) with a one where a treatment is held out) of an Arrow batch of HELD."""
    later = batch.column("later")
    starts = np.concatenate([[0], np.cumsum(later.value_lengths().to_numpy())])
    columns = later.flatten().to_numpy()
    wanted = sparse.csr_matrix((np.ones(len(columns)), columns, starts), shape=(batch.num_rows, num_treatments))
    return of_batch(batch, num_treatments, num_features), wanted


def measure(held: DataFrame, judged: Judged) -> DataFrame:
    """Every model's list for every patient, and its figures.

    Args:
        held: HELD; patients of whom nothing is held out are left out here.
    Returns:
        MEASURED: one row per patient and model. popularity is the mean share of patients who have what is listed;
        interactions the share of the list's pairs that interact, null where nobody can say.
    """
    return held.where(F.size("later") > 0).mapInArrow(_Measure(judged), MEASURED)


def figures(rows: DataFrame, groups: DataFrame, baseline: str, judged: Judged, min_patients: int = 20) -> DataFrame:
    """The rows of gold.model_metric.

    Args:
        rows: of measure, and split, one for each patient. groups: patient_id, subgroup (unique pairs), as
            features.patients.subgroups gives.
        baseline: the model that the others are compared with, patient by patient.
        min_patients: a smaller subgroup is left out: its interval says nothing, and it points at its patients.
    Returns:
        split, model, subgroup, metric, value, low, high, num_patients: means with normal 95 % intervals; of NDCG,
        recall and MAP also the difference to the baseline, from each patient's own. coverage, the share of the
        catalogue that stands in anybody's list, has no interval.
    """
    top_k = judged.top_k
    names = {
        f"ndcg_at_{top_k}": "ndcg",
        f"recall_at_{top_k}": "recall",
        f"map_at_{top_k}": "average_precision",
        f"jaccard_at_{top_k}": "jaccard",
        f"popularity_at_{top_k}": "popularity",
        f"interactions_at_{top_k}": "interactions",
    }
    theirs = rows.where(F.col("model") == baseline).select(
        "patient_id", *(F.col(name).alias(f"their_{name}") for name in ("ndcg", "recall", "average_precision"))
    )
    joined = rows.join(theirs, on="patient_id", how="inner").join(groups, on="patient_id", how="inner")
    values: dict[str, Column] = {metric: F.col(name) for metric, name in names.items()}
    is_other = F.col("model") != baseline
    for metric, name in list(names.items())[:3]:
        values[f"{metric}_above_{baseline}"] = F.when(is_other, F.col(name) - F.col(f"their_{name}"))
    told = means(joined, values, ("split", "model", "subgroup"))
    return told.unionByName(_coverage(rows, groups, judged)).where(F.col("num_patients") >= min_patients)


def _coverage(rows: DataFrame, groups: DataFrame, judged: Judged) -> DataFrame:
    """The share of the catalogue in anybody's list; as the rows of `figures`."""
    # Patients of the very same subgroups are one until their lists are counted: these are few, lists are many.
    alike = groups.groupBy("patient_id").agg(F.array_sort(F.collect_set("subgroup")).alias("subgroups"))
    places = rows.join(alike, on="patient_id", how="inner").select(
        "split", "model", "subgroups", F.posexplode_outer("listed").alias("place", "item")
    )
    is_first = F.coalesce("place", F.lit(0)) == 0
    counted = places.groupBy("split", "model", "subgroups", "item").agg(F.count_if(is_first).alias("num_patients"))
    counted = counted.select("split", "model", F.explode("subgroups").alias("subgroup"), "item", "num_patients")
    covered = counted.groupBy("split", "model", "subgroup").agg(
        (F.count_distinct("item") / len(judged.share)).alias("value"), F.sum("num_patients").alias("num_patients")
    )
    unknown = F.lit(None).cast("double")
    return covered.withColumns({"metric": F.lit(f"coverage_at_{judged.top_k}"), "low": unknown, "high": unknown})
