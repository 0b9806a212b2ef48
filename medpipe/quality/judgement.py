"""What becomes of each delivered row: accepted, quarantined with every reason, or an exact copy."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from medpipe.quality import checks

NAME = ("source_table", "record_hash", "occurrence")


def judged(rows: DataFrame, name: str, key: tuple[str, ...], persons: DataFrame | None) -> DataFrame:
    """rows with `reasons` and `fate`, and, where persons are given, patient_id swapped for the pseudonym.

    Args:
        rows: every delivered row for silver table `name`: its columns, the bronze name, person_id, faults. Read three
            times: persist it where it is dear.
        key: what names a record within the delivery, ids as delivered.
        persons: person_id (unique), pseudonym, birth_date (null: nobody by that id was delivered), or None for rows
            that are about no patient or that tell who is one.
    """
    firsts = rows.where("occurrence = 1")
    clashing = checks.conflicting(firsts, key).withColumn("is_clashing", F.lit(True))
    joined = rows.join(clashing, on=list(key), how="left")
    more = [F.when(F.col("is_clashing"), "KEY_CONFLICT")]
    if persons is not None:
        known = persons.select("person_id", "pseudonym", F.col("birth_date").alias("born"))
        joined = joined.join(known, on="person_id", how="left").withColumn("patient_id", F.col("pseudonym"))
        more.append(F.when(F.col("person_id").isNotNull() & F.col("born").isNull(), "UNKNOWN_PATIENT"))
        happened = next(column for column in ("event_at", "started_at", "start_date") if column in rows.columns)
        # A day's grace: the hospital's calendar day may begin before UTC's.
        more.append(F.when(F.col(happened) < F.date_sub("born", 1), "BEFORE_BIRTH"))
    fate = F.when(F.col("occurrence") > 1, "duplicate").when(F.size("reasons") > 0, "quarantined").otherwise("accepted")
    return joined.withColumn("reasons", checks.reasons(name, *more)).withColumn("fate", fate)


def gaps(accepted: DataFrame, encounters: DataFrame) -> DataFrame:
    """What accepted events lack: source_table, gap, num_rows.

    Args:
        accepted: events with encounter_id, concept, value, unit.
        encounters: encounter_id of every visit delivered so far, in the same form (delivered or pseudonym) as the events'.
    """
    visits = encounters.select("encounter_id").distinct().withColumn("is_known", F.lit(True))
    joined = accepted.join(visits, on="encounter_id", how="left")
    missing = {
        "UNKNOWN_VISIT": F.col("encounter_id").isNotNull() & F.col("is_known").isNull(),
        "UNMAPPED_CONCEPT": F.col("concept") == "OMOP:0",
        "NO_UNIT": F.col("value").isNotNull() & F.col("unit").isNull(),
    }
    found = F.explode(F.array_compact(F.array(*[F.when(test, code) for code, test in missing.items()])))
    return (
        joined.select("source_table", found.alias("gap"))
        .groupBy("source_table", "gap")
        .agg(F.count("*").alias("num_rows"))
    )
