"""How the columns of a delivery differ from those that its mapping names: new ones, and ones that are gone."""

import json
import re
from collections.abc import Callable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from medpipe.ingest.tabular import FILE
from medpipe.mappings.mapping import DELETED, Mapping

# A place in a list, within the path of a value.
PLACE = r"\.\d+(?=\.|$)"


def drift(records: DataFrame, mapping: Mapping) -> DataFrame:
    """What no mapping names and what no row has.

    Args:
        records: of bronze.record, one delivery; reads source_table, fields and corrupt.
    Returns:
        source_table, column_name, drift, num_rows. UNKNOWN_COLUMN: rows that have it; it stays in bronze.
        MISSING_COLUMN: rows of the table, none of which has a value for a column that the mapping reads. Of FHIR a
        column is a path, `*` for each place in a list. Tables of deletions are not asked.

    Cost: one pass over the names of the columns; rows of equal names are one from there on.
    """
    tables = sorted(table for table in mapping.required if not table.startswith(DELETED))
    own = records.where(F.col("source_table").isin(tables) & F.col("corrupt").isNull())
    shapes = own.groupBy("source_table", F.map_keys("fields").alias("names")).agg(F.count("*").alias("num_rows"))
    name = F.explode(F.array_distinct(F.transform("names", lambda name: _path(mapping, name)))).alias("column_name")
    seen = shapes.select("source_table", name, "num_rows").groupBy("source_table", "column_name")
    seen = seen.agg(F.sum("num_rows").alias("num_rows"))
    named, read = _known(mapping, tables)
    is_unknown = ~F.array_contains(named[F.col("source_table")], F.col("column_name"))
    unknown = seen.where(is_unknown).withColumn("drift", F.lit("UNKNOWN_COLUMN"))
    whole = shapes.groupBy("source_table").agg(F.sum("num_rows").alias("num_rows"))
    wanted = whole.select("source_table", F.explode(read[F.col("source_table")]).alias("column_name"), "num_rows")
    missing = wanted.join(seen, on=["source_table", "column_name"], how="left_anti")
    return unknown.unionByName(missing.withColumn("drift", F.lit("MISSING_COLUMN")))


def named_after(found: DataFrame, hide: Callable[[Column], Column], patients: DataFrame) -> DataFrame:
    """column_name, unique: unknown columns whose name is a patient's id, or has it for a part.

    Args:
        found: of phi.schema_drift. hide: makes pseudonyms of patients' ids, in whatever spelling.
        patients: patient_id, pseudonyms.
    """
    names = found.where("drift = 'UNKNOWN_COLUMN'").select("column_name").distinct()
    parts = [F.split("column_name", pattern) for pattern in ("[^A-Za-z0-9-]+", "[^A-Za-z0-9]+")]
    told = names.withColumn("part", F.explode(F.array_distinct(F.concat(F.array("column_name"), *parts))))
    told = told.withColumn("patient_id", hide(F.col("part")))
    return told.join(patients, on="patient_id", how="left_semi").select("column_name").distinct()


def _known(mapping: Mapping, tables: list[str]) -> tuple[Column, Column]:
    """Maps of a table to the columns that it may have, and to those that are read of it."""
    # The file's name and a resource's type say which table it is.
    beside = {FILE, "resourceType"}
    beside |= {mapping.beside["key"], *mapping.beside["columns"]} if mapping.beside else set()
    pattern = re.compile(PLACE if mapping.ids == "reference" else r"(?!)")
    read = {table: {pattern.sub(".*", name) for name in mapping.columns(table)} - {FILE} for table in tables}
    return _literal({table: columns | beside for table, columns in read.items()}), _literal(read)


def _literal(columns_of: dict[str, set[str]]) -> Column:
    told = {table: sorted(columns) for table, columns in columns_of.items()}
    return F.from_json(F.lit(json.dumps(told)), "map<string, array<string>>")


def _path(mapping: Mapping, name: Column) -> Column:
    return F.regexp_replace(name, PLACE, ".*") if mapping.ids == "reference" else name
