"""A patient's newest list, by pseudonym: each treatment with its reasons, and what was kept out of it and why."""

import argparse
import sys

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from medpipe import command, job, show
from medpipe.errors import UsageError
from medpipe.recommend.safety import FORMULARY
from medpipe.tables import Lake


def main(argv: list[str] | None = None) -> int:
    parser = command.arguments("recommend", __doc__)
    parser.add_argument("action", choices=("show",), help="show: print the list of one patient")
    parser.add_argument("--patient", required=True, help="the pseudonym, as in silver.patient")
    return job.main("recommend", parser, argv, lambda work, args: printed(work, args))


def printed(work: job.Workplace, args: argparse.Namespace) -> None:
    """Of --as-of, or of the newest night that made lists.

    Raises:
        UsageError: NO_LISTS; UNKNOWN_PATIENT, the pseudonym not repeated.
    """
    lake = work.lake.for_run("")
    as_of = work.as_of or lake.read("ops.recommended").agg(F.max("as_of")).first()[0]
    if as_of is None or lake.read("ops.recommended", as_of).isEmpty():
        raise UsageError("NO_LISTS", f"no lists as of {as_of or 'any date'}; run recommend_treatments first")
    mine = {"patient_id": args.patient}
    if lake.read("silver.patient", as_of, where=mine).isEmpty():
        raise UsageError("UNKNOWN_PATIENT", f"no such patient_id in silver.patient as of {as_of}; give the pseudonym")
    rows = lake.read("gold.recommendation", as_of, where=mine).orderBy("rank").collect()
    stopped = lake.read("gold.recommendation_blocked", as_of, where=mine).orderBy("place", "reason", "cause").collect()
    names = names_of(lake, as_of, rows, stopped)
    print(f"as of {as_of}: {len(rows)} treatments to consider; a suggestion for review, never advice")
    if rows:
        # A new treatment stands in the list of a patient of any path.
        path = next((row.path for row in rows if row.path != "content"), "content")
        print(f"by {path}; a reason says what it adds to the score, and how many patients had both where told")
        show.lines(["rank", "treatment", "score", "reasons"], [listed_line(row, names) for row in rows])
    if stopped:
        print("kept out of the list:")
        show.lines(
            ["place", "treatment", "severity", "why", "source"],
            [
                [str(r.place), names[r.treatment], r.severity, f"{r.reason}: {names[r.cause]}", r.source]
                for r in stopped
            ],
        )
    elif lake.read("ops.safety", as_of).where(F.col("file") != FORMULARY).isEmpty():
        print("no safety tables were given that night (safety.folder): nothing but what the patient has was kept out")


def names_of(lake: Lake, as_of, rows: list[Row], stopped: list[Row]) -> dict[str, str]:
    """Every concept the lines name, with its name where silver.concept has one."""
    asked = {row.treatment for row in [*rows, *stopped]} | {row.cause for row in stopped}
    # A feature says of what kind it is before it names a concept.
    asked |= {reason.concept.rpartition("=")[2] for row in rows for reason in row.reasons}
    frame: DataFrame = lake.spark.createDataFrame([(concept,) for concept in sorted(asked)], "concept string")
    known = lake.read("silver.concept", as_of).join(F.broadcast(frame), on="concept", how="left_semi")
    # Two sources may name one concept.
    found = known.groupBy("concept").agg(F.max_by("name", F.struct("known_at", "name")).alias("name")).collect()
    return {concept: concept for concept in asked} | {row.concept: f"{row.name} ({row.concept})" for row in found}


def names_in(feature: str, names: dict[str, str]) -> str:
    """condition=OMOP:1 with the name of the concept."""
    kind, sign, concept = feature.rpartition("=")
    return f"{kind}{sign}{names[concept]}"


def listed_line(row: Row, names: dict[str, str]) -> list[str]:
    told = [
        f"{reason.contribution:+.3f} {names_in(reason.concept, names)}"
        + ("" if reason.num_patients is None else f", {reason.num_patients:,} patients")
        for reason in row.reasons
    ]
    told.append(f"{row.rest:+.3f} all else")
    if row.classes:
        told.append(f"new here, scored like others of {', '.join(row.classes)}")
    return [str(row.rank), names[row.treatment], f"{row.score:.3f}", "\n".join(told)]


if __name__ == "__main__":
    sys.exit(main())
