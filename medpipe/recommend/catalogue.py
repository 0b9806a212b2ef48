"""Which treatments and features are columns of one night's models; what lasts longer than a night is their names."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F


@dataclass(frozen=True)
class Catalogue:
    """Names by column, sorted."""

    treatments: list[str]
    features: list[str]

    def frame(self, spark: SparkSession) -> DataFrame:
        """name, kind (treatment or feature), column."""
        kinds = [("treatment", self.treatments), ("feature", self.features)]
        parts = [
            pa.table({"name": pa.array(names, pa.string()), "column": np.arange(len(names), dtype="i4")}).append_column(
                "kind", pa.array([kind] * len(names), pa.string())
            )
            for kind, names in kinds
        ]
        return spark.createDataFrame(pa.concat_tables(parts))


def catalogue(ratings: DataFrame, features: DataFrame, max_treatments: int, max_features: int) -> Catalogue:
    """The treatments and the features that most patients have, ties by name.

    Args:
        ratings: patient_id, treatment (unique pairs). features: patient_id, feature (unique pairs).
    """
    return Catalogue(_commonest(ratings, "treatment", max_treatments), _commonest(features, "feature", max_features))


def _commonest(rows: DataFrame, name: str, at_most: int) -> list[str]:
    counted = rows.groupBy(name).count().orderBy(F.desc("count"), name).limit(at_most)
    return sorted(row[name] for row in counted.collect())
