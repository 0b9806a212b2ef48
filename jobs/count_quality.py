"""Count what is wrong with silver as known at --as-of, rule by rule (ops.quality_count); check_quality judges it."""

import sys
from dataclasses import asdict

from pyspark.sql import functions as F

from medpipe import job, ledger
from medpipe.quality import rules
from medpipe.quality.counting import counts

SILVER = ("silver.patient", "silver.encounter", "silver.observation_period", "silver.event", "silver.concept")


@job.step(
    reads={name: {} for name in SILVER},
    writes=("ops.quality_count",),
    # All of a rule but its threshold: a new one asks nothing else of silver.
    extra=lambda work, _: {"rules": ledger.digest([asdict(rule) | {"threshold": None} for rule in rules.shipped()])},
)
def main(run: job.Run) -> None:
    silver = {name: run.lake.read(name, run.as_of) for name in SILVER}
    counted = counts(silver, rules.shipped(), run.lake.timezone).withColumn("as_of", F.lit(run.as_of))
    run.lake.replace(counted, "ops.quality_count", where=run.partition)


if __name__ == "__main__":
    sys.exit(main())
