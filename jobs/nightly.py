"""A night: what the hospital delivered in; scores and recommendations as of the date out.

Steps that have run on the same input are skipped. Scores are written by the model that is current at --as-of; a lake
without one gets everything else (see `medpipe run retrain_risk` and `medpipe run promote_model`).
"""

import sys
from pathlib import Path

from medpipe import command, job, log
from medpipe.errors import UsageError
from medpipe.jobs import (
    build_cohort,
    build_ratings,
    build_sequences,
    find_similar_patients,
    ingest_records,
    recommend_treatments,
    score_population,
    standardise_records,
)


def main(argv: list[str] | None = None) -> int:
    parser = command.arguments("nightly", __doc__)
    parser.add_argument("--delivery", type=Path, action="append", default=[], help="folder delivered; may be repeated")
    parser.add_argument(
        "--history", action="store_true", help="an initial load: records count as known when they happened"
    )
    return job.main("nightly", parser, argv, lambda work, args: night(work, args.delivery, args.history))


def night(work: job.Workplace, folders: list[Path], is_history: bool = False) -> None:
    """Runs every step of one as_of in order and prints a line for each."""
    load(work, folders, is_history)
    job.announce(work.run(build_cohort.main, role="apply"))
    job.announce(work.run(build_sequences.main, role="apply"))
    try:
        job.announce(work.run(score_population.main, recipe="risk_gru"))
    except UsageError as failure:
        if failure.code != "NO_CURRENT_MODEL":
            raise
        log.logger.warning("step not run", extra={"job": "score_population", "code": failure.code})
        print(f"  score_population         not run: {failure}")
    for step in (build_ratings.main, recommend_treatments.main, find_similar_patients.main):
        job.announce(work.run(step))


def load(work: job.Workplace, folders: list[Path], is_history: bool = False) -> None:
    """Deliveries into bronze and silver: all that later steps read."""
    for folder in folders:
        delivery = job.delivery_from(work, folder, is_history)
        job.announce(work.run(ingest_records.main, delivery=delivery))
    job.announce(work.run(standardise_records.main))


if __name__ == "__main__":
    sys.exit(main())
