"""What is known of patients, as the models of this room read it: treatments had, and features, by their columns."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from medpipe.errors import DataError

HISTORIES = "patient_id string, treatments array<int>, weights array<float>, features array<int>"


@dataclass(frozen=True)
class Histories:
    """B patients, M treatments of the catalogue, N features.

    Attributes:
        patient_ids: (B,).
        had: float32 (B, M), the rating (> 0) where the patient had the treatment; an empty row for nothing known.
        features: float32 (B, N), 1 where the patient has the feature.
    """

    patient_ids: pa.StringArray
    had: sparse.csr_matrix
    features: sparse.csr_matrix


def histories(ratings: DataFrame, features: DataFrame, patients: DataFrame, catalogue: DataFrame) -> DataFrame:
    """One row per patient, whether anything is known of them or not.

    Args:
        ratings: patient_id, treatment (unique pairs), rating (> 0).
        features: patient_id, feature (unique pairs).
        patients: patient_id, unique.
        catalogue: name (unique), kind (treatment or feature), column (0, 1 ... in each kind); names it lacks are
            left out.
    Returns:
        HISTORIES; arrays rise by column, and are empty, never null, where nothing is known.
    """
    treatments, kinds = (
        catalogue.where(F.col("kind") == kind).select(F.col("name").alias(kind), "column")
        for kind in ("treatment", "feature")
    )
    had = ratings.join(F.broadcast(treatments), on="treatment", how="inner")
    had = had.groupBy("patient_id").agg(F.array_sort(F.collect_list(F.struct("column", "rating"))).alias("had"))
    has = features.join(F.broadcast(kinds), on="feature", how="inner")
    has = has.groupBy("patient_id").agg(F.array_sort(F.collect_list("column")).alias("has"))
    rows = patients.select("patient_id").join(had, on="patient_id", how="left")
    rows = rows.join(has, on="patient_id", how="left")
    return rows.select(
        "patient_id",
        _or_none(F.col("had.column"), "array<int>").alias("treatments"),
        _or_none(F.col("had.rating"), "array<float>").alias("weights"),
        _or_none(F.col("has"), "array<int>").alias("features"),
    )


def of_batch(batch: pa.RecordBatch, num_treatments: int, num_features: int) -> Histories:
    """The patients of an Arrow batch of HISTORIES.

    Raises:
        DataError: DUPLICATE_RATINGS where a patient has a column twice.
    """
    treatments, weights, features = (batch.column(name) for name in ("treatments", "weights", "features"))
    ones = np.ones(len(features.flatten()), np.float32)
    return Histories(
        patient_ids=batch.column("patient_id"),
        had=_matrix(treatments, weights.flatten().to_numpy(), num_treatments),
        features=_matrix(features, ones, num_features),
    )


def to_batch(found: Histories) -> pa.RecordBatch:
    """The other way: HISTORIES of these patients."""
    lists = [(found.had, found.had.indices), (found.had, found.had.data), (found.features, found.features.indices)]
    arrays = [pa.ListArray.from_arrays(pa.array(matrix.indptr, pa.int32()), pa.array(of)) for matrix, of in lists]
    return pa.RecordBatch.from_arrays(
        [found.patient_ids, *arrays], names=["patient_id", "treatments", "weights", "features"]
    )


def _matrix(columns: pa.ListArray, values: np.ndarray, width: int) -> sparse.csr_matrix:
    lengths = columns.value_lengths().to_numpy()
    found = columns.flatten().to_numpy()
    is_same_patient = np.diff(np.repeat(np.arange(len(lengths)), lengths)) == 0
    num_repeated = np.count_nonzero(is_same_patient & (np.diff(found) <= 0))
    if num_repeated:
        raise DataError(
            "DUPLICATE_RATINGS",
            f"{num_repeated} entries of histories stand twice or out of order; expected one a patient and column, "
            "rising: aggregate ratings and features first",
        )
    return sparse.csr_matrix((values, found, np.concatenate([[0], np.cumsum(lengths)])), shape=(len(columns), width))


def once(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """float64: 1 where an entry is stored."""
    return sparse.csr_matrix((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)


def _or_none(found: Column, kind: str) -> Column:
    return F.coalesce(found.cast(kind), F.array().cast(kind))
