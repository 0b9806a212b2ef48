"""What is wrong with silver as known at --as-of, and whether it is more than allowed (gold.data_quality).

Two steps: count_quality reads silver; the judgement reads its counts alone, so new thresholds cost nothing. Nothing is
stopped by a failing check. Thresholds of the hospital's own: quality.thresholds in the settings.
"""

import sys
from dataclasses import asdict

from pyspark.sql import Row

from medpipe import command, job, ledger, show
from medpipe.jobs import count_quality
from medpipe.quality import rules

NUM_LINES = 20
COLUMNS = ("status", "rule", "table.column", "of", "rows", "failed", "percent", "allowed")
FIRST = {"fail": 0, "pass": 1, "not_applicable": 2}


def main(argv: list[str] | None = None) -> int:
    return job.main("check_quality", command.arguments("check_quality", __doc__), argv, lambda work, _: check(work))


def check(work: job.Workplace) -> None:
    """Counts where that is to be done, judges, and prints the worst."""
    job.announce(work.run(count_quality.main))
    job.announce(work.run(judge))
    told(work.lake.for_run("").read("gold.data_quality", work.as_of).collect())


@job.step(
    reads={"ops.quality_count": {}},
    writes=("gold.data_quality",),
    settings=("quality",),
    extra=lambda work, _: {"rules": ledger.digest([asdict(rule) for rule in rules.shipped()])},
)
def judge(run: job.Run) -> None:
    own = rules.with_thresholds(rules.shipped(), run.settings.quality)
    counts = run.lake.read("ops.quality_count", run.as_of).drop("run_id")
    run.lake.replace(rules.judged(counts, own), "gold.data_quality", where=run.partition)


def told(checks: list[Row]) -> None:
    """Prints how many checks ended how, and the worst of them, failing ones first; at most NUM_LINES."""
    found = {status: sum(row.status == status for row in checks) for status in FIRST}
    print(f"  {len(checks)} checks: " + ", ".join(f"{number} {status}" for status, number in found.items()))
    worst = sorted((row for row in checks if row.num_failed), key=_place)[:NUM_LINES]
    show.lines(COLUMNS, [_line(row) for row in worst])


def _place(row: Row) -> tuple:
    return FIRST[row.status], -row.share, row.check_id


def _line(row: Row) -> list[str]:
    of = " ".join(row[name] for name in ("kind", "concept", "unit") if row[name])
    numbers = f"{row.num_rows:,}", f"{row.num_failed:,}", f"{row.share:.2f}", f"{row.threshold:g}"
    return [row.status, row.rule, f"{row.table}.{row.column}", of, *numbers]


if __name__ == "__main__":
    sys.exit(main())
