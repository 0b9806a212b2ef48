"""Train a new candidate of the risk model on all that is known at --as-of; promote_model makes it the current one."""

import sys

from medpipe import command, job
from medpipe.jobs import build_cohort, build_sequences, train_model


def main(argv: list[str] | None = None) -> int:
    return job.main("retrain_risk", command.arguments("retrain_risk", __doc__), argv, lambda work, _: retrain(work))


def retrain(work: job.Workplace) -> None:
    """Cohort and sequences with an index in the past, then the model."""
    job.announce(work.run(build_cohort.main, role="fit"))
    job.announce(work.run(build_sequences.main, role="fit"))
    job.announce(work.run(train_model.main, recipe="risk_gru"))


if __name__ == "__main__":
    sys.exit(main())
