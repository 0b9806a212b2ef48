"""What becomes of each delivered row: accepted, quarantined with every reason, or an exact copy."""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from medpipe import contracts
from medpipe.mappings.mapping import DELETION

NAME = ("source_table", "record_hash", "occurrence")
# Nobody is known to have lived longer. Source: Robine and Allard, Science 279, 1998 (J. Calment, 122 years).
MAX_AGE_YEARS = 122


def judged(rows: DataFrame, persons: DataFrame, num_partitions: int) -> DataFrame:
    """rows with `reasons` and `fate`, and patient_id swapped for the pseudonym.

    Rows of a patient meet in one partition, so that one shuffle serves every question about them.

    Args:
        rows: every delivered row: the bronze name, `silver` (the table it is for), person_id, record_id (what names the
            record among its table's and person's; null where nothing does), happened_at, birth_date and
            started_at (of a patient, the latter where it tells an age), faults, and corrupt and fault of what could not
            be read.
        persons: person_id (unique, every one of rows), pseudonym, birth_date (as delivered before; null: not so far).
    """
    # Rows of nobody would all meet in one partition.
    home = F.coalesce("person_id", F.concat(F.lit("-"), F.coalesce("record_id", "record_hash")))
    known = persons.select(
        F.col("person_id").alias("home"), "pseudonym", F.col("birth_date").alias("delivered_birth_date")
    )
    joined = rows.withColumn("home", home).repartition(num_partitions, "home").join(known, on="home", how="left")
    same_record = Window.partitionBy("home", "source_table", "record_id")
    num_contents = F.sum((F.col("occurrence") == 1).cast("int")).over(same_record)
    # Which of several contents holds cannot be known.
    conflict = F.when(F.col("record_id").isNotNull() & (num_contents > 1), "KEY_CONFLICT")
    is_patient = F.col("silver") == "silver.patient"
    too_old = F.when(is_patient & _is_too_old("birth_date", "started_at"), "IMPLAUSIBLE_AGE")
    alone = joined.withColumn("conflict", conflict)
    accepted_patient = is_patient & (F.size("faults") == 0) & F.col("conflict").isNull() & too_old.isNull()
    own_birth_date = F.max(F.when(accepted_patient, F.col("birth_date"))).over(Window.partitionBy("home"))
    placed = alone.withColumn("born", F.coalesce(own_birth_date, "delivered_birth_date"))
    # A deletion needs no patient: its record may have gone with the patient, or never have come.
    is_about_patient = F.col("person_id").isNotNull() & ~F.col("silver").isin("silver.patient", DELETION)
    reasons = _reasons(
        F.col("conflict"),
        F.when(is_about_patient & F.col("born").isNull(), "UNKNOWN_PATIENT"),
        # A day's grace: the hospital's calendar day may begin before UTC's.
        F.when(is_about_patient & (F.col("happened_at") < F.date_sub("born", 1)), "BEFORE_BIRTH"),
        F.coalesce(too_old, F.when(is_about_patient & _is_too_old("born", "happened_at"), "IMPLAUSIBLE_AGE")),
    )
    fate = F.when(F.col("occurrence") > 1, "duplicate").when(F.size("reasons") > 0, "quarantined").otherwise("accepted")
    decided = placed.withColumn("reasons", reasons).withColumns({"fate": fate, "patient_id": F.col("pseudonym")})
    return decided.drop(
        "home", "pseudonym", "delivered_birth_date", "conflict", "born", "happened_at", "faults", "corrupt", "fault"
    )


def gaps(accepted: DataFrame, encounters: DataFrame) -> DataFrame:
    """What accepted events lack: source_table, gap, num_rows.

    Args:
        accepted: events with encounter_id, concept, value, unit.
        encounters: encounter_id of every visit delivered so far, delivered or pseudonym like the events'.
    """
    visits = encounters.select("encounter_id").distinct().withColumn("is_known", F.lit(True))
    joined = accepted.join(visits, on="encounter_id", how="left")
    missing = {
        "UNKNOWN_VISIT": F.col("encounter_id").isNotNull() & F.col("is_known").isNull(),
        "UNMAPPED_CONCEPT": F.col("concept") == "OMOP:0",
        "NO_UNIT": F.col("value").isNotNull() & F.col("unit").isNull(),
    }
    found = F.explode(contracts.codes(*[F.when(test, code) for code, test in missing.items()]))
    return (
        joined.select("source_table", found.alias("gap"))
        .groupBy("source_table", "gap")
        .agg(F.count("*").alias("num_rows"))
    )


def _is_too_old(born: str, at: str) -> Column:
    """Whether somebody born on that day had outlived MAX_AGE_YEARS at a moment."""
    return F.add_months(born, 12 * (MAX_AGE_YEARS + 1)) <= F.col(at)


def _reasons(*more: Column) -> Column:
    """array<string>: codes of all that is wrong with a row, sorted; empty for a good one. Reads `faults`.

    A line that could not be read has that for its only reason, since nothing in it stands where it should.

    Args:
        more: further codes, null where they do not apply.
    """
    every = F.sort_array(F.array_union("faults", contracts.codes(*more)))
    return F.when(F.col("corrupt").isNotNull(), F.array("fault")).otherwise(every)
