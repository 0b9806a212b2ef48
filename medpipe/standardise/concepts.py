"""Codes as delivered -> the standard concepts of the hospital's vocabulary, so that its sources share them."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def in_standard(rows: DataFrame, standard: DataFrame) -> DataFrame:
    """The rows with the concepts and answers of events as standard concepts; a code that has none stays as it is.

    Args:
        rows: silver, concept, answer and more.
        standard: source_concept (unique), standard_concept; small, for every executor gets it.
    Returns:
        rows with source_concept: the code as delivered where another concept stands for it, else null.
    """
    is_event = F.col("silver") == "silver.event"
    known = F.broadcast(standard.select("source_concept", "standard_concept"))
    coded = rows.join(known, on=is_event & (F.col("concept") == F.col("source_concept")), how="left")
    coded = coded.withColumn("concept", F.coalesce("standard_concept", "concept")).drop("standard_concept")
    answers = known.select(F.col("source_concept").alias("answer"), F.col("standard_concept").alias("standard_answer"))
    answered = coded.join(F.broadcast(answers), on="answer", how="left")
    return answered.withColumn("answer", F.coalesce("standard_answer", "answer")).drop("standard_answer")


def gaps(events: DataFrame, standard: DataFrame) -> DataFrame:
    """What the vocabulary does not say of accepted events: source_table, gap, num_rows.

    UNKNOWN_CODE and the code's vocabulary: it has no standard concept. SEVERAL_CONCEPTS: it has more than one.

    Args:
        events: source_table, concept, source_concept. standard: as `in_standard`, with num_targets.
    """
    several = F.broadcast(standard.where("num_targets > 1").select("source_concept", "num_targets"))
    told = events.join(several, on="source_concept", how="left")
    vocabulary = F.regexp_extract("concept", "^([^:]*):", 1)
    gap = F.when(F.col("num_targets").isNotNull(), "SEVERAL_CONCEPTS")
    gap = gap.when(vocabulary != "OMOP", F.concat(F.lit("UNKNOWN_CODE "), vocabulary))
    found = told.select("source_table", gap.alias("gap")).where("gap is not null")
    return found.groupBy("source_table", "gap").agg(F.count("*").alias("num_rows"))
