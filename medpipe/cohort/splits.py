"""Train, tune and test patients, for good."""

from pyspark.sql import Column
from pyspark.sql import functions as F

PERCENT_TRAIN = 60
PERCENT_TUNE = 20


def split_of(patient_id: Column) -> Column:
    """train (60 %), tune (20 %) or test, by xxhash64 of the pseudonym: no table, no seed, no patient in two parts."""
    percent = F.pmod(F.xxhash64(patient_id), F.lit(100))
    tune_below = PERCENT_TRAIN + PERCENT_TUNE
    return F.when(percent < PERCENT_TRAIN, "train").when(percent < tune_below, "tune").otherwise("test")
