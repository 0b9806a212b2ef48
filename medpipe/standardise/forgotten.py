"""Which of a source's records go when patients are forgotten: those that name them, and what is there for these alone.

Deletions and addresses name no patient. They go with the records of one where no record of another shares their key.
"""

import json
from collections.abc import Callable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from medpipe.mappings.mapping import DELETED, Mapping
from medpipe.standardise.columns import canonical, field
from medpipe.standardise.records import persons_of

NAME = ["source_table", "record_hash", "occurrence"]


def of_patients(
    records: DataFrame, mapping: Mapping, hide: Callable[[Column], Column], patients: DataFrame
) -> DataFrame:
    """The records, all their columns, that are to go; one that names two patients may stand twice.

    Args:
        records: of bronze.record, one source; what others share a key with must be among them.
        hide: makes pseudonyms of patients' ids. patients: patient_id, pseudonyms.
    """
    persons = persons_of(records, mapping)
    ids = persons.select("person_id").distinct().withColumn("patient_id", hide(F.col("person_id")))
    mine = ids.join(patients, on="patient_id", how="left_semi")
    theirs = persons.join(mine, on="person_id", how="left_semi").drop("person_id")
    return theirs.unionByName(_nameless(records, mapping, persons, theirs))


def _nameless(records: DataFrame, mapping: Mapping, persons: DataFrame, theirs: DataFrame) -> DataFrame:
    """Deletions without a patient, and rows that only stand beside others, whose key `theirs` alone have."""
    is_nameless = F.col("source_table").startswith(DELETED) | (F.col("source_table") == mapping.only_beside())
    keyed = records.where(~is_nameless).select(*NAME, F.explode(_keys(mapping)).alias("key"))
    of_others = keyed.join(theirs.select(*NAME), on=NAME, how="left_anti").select("key")
    keys = theirs.select(F.explode(_keys(mapping)).alias("key")).join(of_others, on="key", how="left_anti")
    nameless = records.where(is_nameless).join(persons.select(*NAME), on=NAME, how="left_anti")
    return nameless.withColumn("key", F.explode(_keys(mapping))).join(keys, on="key", how="left_semi").drop("key")


def _keys(mapping: Mapping) -> Column:
    """array<string>: by which a record is deleted, and by which it finds what stands beside it."""
    deleted = [m for m in mapping.meanings if m.table.startswith(DELETED)]
    ids = {m.table.removeprefix(DELETED): list(m.id) for m in deleted}
    table = F.regexp_replace("source_table", f"^{DELETED}", "")
    named_by = F.from_json(F.lit(json.dumps(ids, sort_keys=True)), "map<string, array<string>>")[table]
    own = canonical(mapping, F.coalesce(*[field(mapping, F.get(named_by, F.lit(place))) for place in (0, 1)]))
    keys = [F.concat(table, F.lit(" "), own)]
    if beside := mapping.only_beside():
        has_one = F.col("source_table").isin([beside, *mapping.takers()])
        keys.append(F.when(has_one, F.concat(F.lit(f"{beside} "), F.col("fields")[mapping.beside["key"]])))
    return F.array_compact(F.array(*keys))
