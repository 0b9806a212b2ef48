"""Safe lists with their reasons for all patients: one pass over their histories.

B patients, M treatments, N features, C causes, K the length of a list.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType
from scipy import sparse

from medpipe.errors import DataError
from medpipe.recommend.catalogue import Catalogue
from medpipe.recommend.histories import Histories, of_batch
from medpipe.recommend.parts import Model, Scored
from medpipe.recommend.reasons import Reasons, reasons_of
from medpipe.recommend.rules import IN_LIST, Rules
from medpipe.recommend.settings import RecommendSettings
from medpipe.recommend.topk import scores_of
from medpipe.recommend.walk import Walked, walked

# Patients scored at a time: bounds the memory of a task, 8 bytes each times the treatments.
SCORED_ROWS = 1024
# A stored score is rounded to 1e-6, which takes half of what the reasons may be off by.
TOLERANCE = 4e-7
REASON = pa.struct(
    [("kind", pa.string()), ("concept", pa.string()), ("contribution", pa.float64()), ("num_patients", pa.int64())]
)
LISTED = pa.struct(
    [
        ("rank", pa.int32()),
        ("treatment", pa.string()),
        ("score", pa.float64()),
        ("reasons", pa.list_(REASON)),
        ("rest", pa.float64()),
    ]
)
BLOCKED = pa.struct(
    [("place", pa.int32()), ("treatment", pa.string()), ("reason", pa.string()), ("cause", pa.string())]
)
_ARROW = pa.schema(
    [("patient_id", pa.string()), ("path", pa.string()), ("listed", pa.list_(LISTED)), ("blocked", pa.list_(BLOCKED))]
)
LISTS = (
    "patient_id string, path string, listed array<struct<rank int, treatment string, score double, "
    "reasons array<struct<kind string, concept string, contribution double, num_patients long>>, rest double>>, "
    "blocked array<struct<place int, treatment string, reason string, cause string>>"
)


@dataclass(frozen=True)
class Lister:
    """For `mapInArrow` over HISTORIES and causes (array<int>, places in rules.causes) -> LISTS, a row per patient.

    Attributes:
        names: of the model's columns.
        together: (M + N, M), patients who have the treatment or feature (row) and the treatment (column).
        settings: reads top_k, num_reasons and min_patients.
    """

    model: Model
    rules: Rules
    names: Catalogue
    together: np.ndarray
    settings: RecommendSettings

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """
        Raises:
            DataError: BAD_SCORE; REASONS_DO_NOT_ADD_UP, a fault of the model.
        """
        torch.set_num_threads(1)  # Spark has given this task one core
        for batch in batches:
            for start in range(0, batch.num_rows, SCORED_ROWS):
                yield self._lists(batch.slice(start, SCORED_ROWS))

    def _lists(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        known = of_batch(batch, len(self.names.treatments), len(self.names.features))
        scored, causes = self.model.scored(known), _causes(batch, len(self.rules.causes))
        found = walked(scored.scores, known.had, causes, self.rules, self.settings.top_k)
        columns = [batch.column("patient_id"), _paths(known), self._listed(known, scored, found)]
        return pa.RecordBatch.from_arrays([*columns, self._blocked(batch.num_rows, found)], schema=_ARROW)

    def _listed(self, known: Histories, scored: Scored, found: Walked) -> pa.ListArray:
        """Of each patient the array of LISTED."""
        scores, items = scored.scores, np.zeros((len(scored.scores), self.settings.top_k), np.int64)
        items[found.rows, found.ranks - 1] = found.columns
        parts = scored.parts(items)
        off = np.abs(parts.totals(known) - np.take_along_axis(scores, items, axis=1))
        if off.max(initial=0) > TOLERANCE:
            raise DataError(
                "REASONS_DO_NOT_ADD_UP", f"parts of a score miss it by {off.max():.2g}; expected at most 1e-6"
            )
        # Lists shorter than top_k have no reasons for what is not there.
        is_listed = np.zeros(items.shape, bool)
        is_listed[found.rows, found.ranks - 1] = True
        reasons = reasons_of(parts, known, self.settings.num_reasons)
        columns = [
            pa.array(found.ranks, pa.int32()),
            self._names.take(pa.array(found.columns)),
            pa.array(scores_of(found.steps)),
            self._reasons(reasons, is_listed, items),
            pa.array(reasons.rest[is_listed]),
        ]
        return _grouped(found.rows, len(scores), pa.StructArray.from_arrays(columns, fields=list(LISTED)))

    def _reasons(self, reasons: Reasons, is_listed: np.ndarray, items: np.ndarray) -> pa.ListArray:
        """Of each place of a list the array of REASON."""
        is_told = np.repeat(is_listed.ravel(), reasons.counts.ravel())
        is_feature, columns = reasons.is_feature[is_told], reasons.columns[is_told]
        columns = columns + is_feature * len(self.names.treatments)
        counts = reasons.counts[is_listed]
        num_patients = self.together[columns, np.repeat(items[is_listed], counts)]
        told = [
            pa.array(["treatment", "feature"]).take(pa.array(is_feature.astype(np.int64))),
            self._names.take(pa.array(columns)),
            pa.array(reasons.contributions[is_told]),
            pa.array(num_patients, pa.int64(), mask=num_patients < self.settings.min_patients),
        ]
        entries = np.repeat(np.arange(len(counts)), counts)
        return _grouped(entries, len(counts), pa.StructArray.from_arrays(told, fields=list(REASON)))

    def _blocked(self, num_patients: int, found: Walked) -> pa.ListArray:
        """Of each patient the array of BLOCKED."""
        rows, places, columns, numbers = found.blocked.T
        told = [pa.array(places, pa.int32()), self._names.take(pa.array(columns))]
        told += [part.take(pa.array(numbers)) for part in self._causes]
        return _grouped(rows, num_patients, pa.StructArray.from_arrays(told, fields=list(BLOCKED)))

    @cached_property
    def _names(self) -> pa.Array:
        """Treatments, then features."""
        return pa.array([*self.names.treatments, *self.names.features], pa.string())

    @cached_property
    def _causes(self) -> tuple[pa.Array, pa.Array]:
        """(reasons, causes) of what may block: causes in the record, then better treatments of the list."""
        causes = [*self.rules.causes, *((IN_LIST, name) for name in self.names.treatments)]
        return tuple(pa.array(part, pa.string()) for part in zip(*causes, strict=True))


def safe_lists(rows: DataFrame, lister: Lister) -> DataFrame:
    """What may be looked at for each patient, and what was taken out.

    Args:
        rows: HISTORIES and causes; see `histories` and `with_causes`.
    Returns:
        LISTS, a row for every patient of rows. path: history, where a treatment of the catalogue is known; else
        features, where one is; else popularity. Equal scores stand by treatment; scores are rounded to 1e-6.
    """
    columns = ("patient_id", "treatments", "weights", "features", "causes")
    return rows.select(*columns).mapInArrow(lister, LISTS)


def nothing_listed(patients: DataFrame) -> DataFrame:
    """LISTS of a lake that knows no treatment of anybody: patients (patient_id, unique), and nothing of them."""
    kinds = StructType.fromDDL(LISTS)
    nothing = [F.array().cast(kinds[name].dataType).alias(name) for name in ("listed", "blocked")]
    return patients.select("patient_id", F.lit("none").alias("path"), *nothing)


def listed(lists: DataFrame) -> DataFrame:
    """patient_id, rank, treatment, score, path, reasons, rest: a row for each treatment of LISTS."""
    return lists.select("patient_id", "path", F.inline("listed"))


def blocked(lists: DataFrame, pairs: dict[tuple[str, str, str], tuple[str, str]]) -> DataFrame:
    """patient_id, place, treatment, reason, cause, severity, source: a row for each thing that blocks a treatment.

    Args:
        pairs: as `pairs_of` gives them: severity and source.
    """
    told = [(*key, *pairs[key]) for key in sorted(pairs)]
    names = ["rule", "cause", "treatment", "severity", "source"]
    columns = zip(*told, strict=True) if told else [[]] * len(names)
    arrays = [pa.array(column, pa.string()) for column in columns]
    frame = lists.sparkSession.createDataFrame(pa.Table.from_arrays(arrays, names))
    rows = lists.select("patient_id", F.inline("blocked"))
    rows = rows.withColumn("rule", F.when(F.col("reason") == IN_LIST, "interaction").otherwise(F.col("reason")))
    return rows.join(F.broadcast(frame), on=["rule", "cause", "treatment"], how="left").drop("rule")


def _causes(batch: pa.RecordBatch, num_causes: int) -> sparse.csr_matrix:
    found = batch.column("causes")
    starts = np.concatenate([[0], np.cumsum(found.value_lengths().to_numpy())])
    columns = found.flatten().to_numpy()
    return sparse.csr_matrix((np.ones(len(columns), bool), columns, starts), shape=(len(found), num_causes))


def _paths(known: Histories) -> pa.Array:
    by = np.where(np.diff(known.had.indptr) > 0, 0, np.where(np.diff(known.features.indptr) > 0, 1, 2))
    return pa.array(["history", "features", "popularity"]).take(pa.array(by))


def _grouped(rows: np.ndarray, num_rows: int, values: pa.Array) -> pa.ListArray:
    """Values as lists of rows 0 to num_rows - 1; rows rise."""
    starts = np.searchsorted(rows, np.arange(num_rows + 1))
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)
