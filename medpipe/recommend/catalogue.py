"""Which treatments and features are columns of one night's models; what lasts longer than a night is their names."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from medpipe.errors import DataError

# The models hold a few arrays of (treatments + features) squared.
MAX_TREATMENTS = 5000


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


def catalogue(ratings: DataFrame, features: DataFrame, max_features: int) -> Catalogue:
    """Every treatment rated, and the features that most patients have, ties by name.

    Args:
        ratings: reads treatment. features: patient_id, feature (unique pairs).
    Raises:
        DataError: TOO_MANY_TREATMENTS.
    """
    treatments = sorted(row.treatment for row in ratings.select("treatment").distinct().collect())
    require_few(len(treatments))
    counted = features.groupBy("feature").count().orderBy(F.desc("count"), "feature").limit(max_features)
    return Catalogue(treatments, sorted(row.feature for row in counted.collect()))


def require_few(num_treatments: int) -> None:
    """Refuses a catalogue whose square no longer fits.

    Raises:
        DataError: TOO_MANY_TREATMENTS.
    """
    if num_treatments > MAX_TREATMENTS:
        raise DataError(
            "TOO_MANY_TREATMENTS",
            f"{num_treatments} treatments; expected at most {MAX_TREATMENTS}: map them to ingredients in the delivery",
        )
