"""A hospital's own OMOP vocabulary, a folder as Athena exports it -> the standard concept of every code."""

import gzip
import hashlib
from functools import cache
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from medpipe.errors import UsageError

FILES = {
    "concept": {"concept_id", "vocabulary_id", "concept_code", "standard_concept"},
    "concept_relationship": {"concept_id_1", "concept_id_2", "relationship_id", "invalid_reason"},
}


def digest(folder: str | None) -> str:
    """SHA-256 of the vocabulary's files, hex; "" without a folder. A file is read again only after a change."""
    if folder is None:
        return ""
    paths = [_file(folder, name) for name in FILES]
    return "".join(_sha256(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths)


def standard_concepts(spark: SparkSession, folder: str, codes: DataFrame) -> DataFrame:
    """source_concept (unique, e.g. LOINC:2345-7), standard_concept (e.g. OMOP:3004501), num_targets of delivered codes.

    The target of a code is what its concepts map to ('Maps to', still valid), or itself if it is standard; a code that
    has none is left out. Of several the one with the lowest concept_id is taken, and num_targets says how many there
    are.

    Args:
        codes: source_concept, unique: those of a delivery; every executor gets them.
    Raises:
        UsageError: NO_VOCABULARY, BAD_VOCABULARY.
    Source: OMOP CDM 5.4, tables CONCEPT and CONCEPT_RELATIONSHIP.

    Cost: one pass over each file; a vocabulary has millions of codes, a delivery thousands, so nothing is shuffled.
    """
    concepts, relations = (_table(spark, folder, name) for name in FILES)
    source_concept = F.concat_ws(":", "vocabulary_id", "concept_code").alias("source_concept")
    named = concepts.select(F.col("concept_id").alias("id"), source_concept, "standard_concept")
    # Asked twice, and small.
    named = named.join(F.broadcast(codes), on="source_concept", how="left_semi").persist()
    valid = F.coalesce("invalid_reason", F.lit("")) == ""
    mapped = relations.where((F.col("relationship_id") == "Maps to") & valid)
    mapped = mapped.select(F.col("concept_id_1").alias("id"), F.col("concept_id_2").alias("target"))
    mapped = mapped.join(F.broadcast(named), on="id", how="inner").select("source_concept", "target")
    itself = named.where("standard_concept = 'S'").select("source_concept", F.col("id").alias("target"))
    # The number alone decides, whichever of the two says it.
    targets = mapped.union(itself).withColumn("target", F.col("target").try_cast("bigint"))
    return (
        targets.where("target is not null")
        .groupBy("source_concept")
        .agg(
            F.concat(F.lit("OMOP:"), F.min("target")).alias("standard_concept"),
            F.count_distinct("target").alias("num_targets"),
        )
    )


def _table(spark: SparkSession, folder: str, name: str) -> DataFrame:
    """The columns of FILES, as text."""
    path = _file(folder, name)
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as text:
        line = text.readline()
    # Athena's files are tab-separated and nothing in them is quoted.
    reading = {"sep": "\t", "quote": ""} if "\t" in line else {"sep": ",", "quote": '"', "escape": '"'}
    rows = spark.read.options(header=True, **reading).csv(f"file://{path.resolve()}")
    missing = sorted(FILES[name] - {column.lower() for column in rows.columns})
    if missing:
        raise UsageError("BAD_VOCABULARY", f"{path} lacks the columns {', '.join(missing)}; expected Athena's export")
    return rows.select(*sorted(FILES[name]))


def _file(folder: str, name: str) -> Path:
    names = {f"{name}.csv", f"{name}.csv.gz"}
    found = [path for path in Path(folder).glob("*") if path.name.lower() in names]
    if len(found) != 1:
        told = f"vocabulary = {folder!r} holds {len(found)} files named {name.upper()}.csv or .csv.gz, expected one"
        raise UsageError("NO_VOCABULARY", f"{told}; export it from athena.ohdsi.org")
    return found[0]


@cache
def _sha256(path: Path, num_bytes: int, changed_at: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
