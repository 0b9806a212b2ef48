"""Publish patients, events, scores and recommendations of --as-of for people outside, without identity.

The setting privacy.mode says how: safe_harbor (the year of every date) or limited (dates moved by a number of days for
each patient; an expert must have determined that its use is fit). They go to the root `published`, one folder a mode.
"""

import sys

from pyspark.sql import DataFrame

from medpipe import command, contracts, job, ledger
from medpipe.errors import UsageError
from medpipe.privacy.disclosure import MODES, NAMESPACE, Release, purpose, released, shifter, withheld_zip3
from medpipe.privacy.groups import groups, hidden
from medpipe.privacy.pseudonyms import pseudonymiser

TABLES = tuple(name for name in contracts.names() if name.split(".")[0] in MODES)


def main(argv: list[str] | None = None) -> int:
    parser = command.arguments("publish_tables", __doc__)
    return job.main("publish_tables", parser, argv, lambda work, _: publish(work))


def publish(work: job.Workplace) -> None:
    """Publishes as_of, the only one of its year.

    Raises:
        UsageError: OTHER_AS_OF.
    """
    done = {e.as_of for e in work.ledger.entries if e.job == "publish_tables" and e.status == "done"}
    if others := sorted(day for day in done - {work.as_of} if work.as_of and day.year == work.as_of.year):
        raise UsageError(
            "OTHER_AS_OF",
            f"{work.as_of.year} is published as of {others[0]}; two publications of a year would tell by their "
            f"difference in which days rows came. Pass --as-of {others[0]}, or wait for the next year",
        )
    job.announce(work.run(tables))


@job.step(
    reads={contracts.load(name).of: {} for name in TABLES},
    writes=TABLES,
    needs_key=True,
    extra=lambda work, _: {
        "privacy": [getattr(work.settings.privacy, name) for name in ("mode", "max_shift_days", "min_group_size")],
        "published": work.settings.published,
        "zip3": ledger.digest(withheld_zip3()),
    },
)
def tables(run: job.Run) -> None:
    chosen = run.settings.privacy
    release = Release(
        as_of=run.as_of,
        timezone=run.lake.timezone,
        hide=pseudonymiser(run.key.subkey(purpose(chosen.mode)), NAMESPACE),
        shift=shifter(run.key.subkey("shift"), chosen.max_shift_days),
    )
    for name in TABLES:
        contract = contracts.load(name)
        if name.startswith(f"{chosen.mode}."):
            rows = released(run.lake.read(contract.of, run.as_of), contract, release)
            rows = alike(rows, name, chosen.min_group_size) if contract.of == "silver.patient" else rows
            run.lake.replace(rows, name, where={"as_of_year": run.as_of.year})


def alike(patients: DataFrame, name: str, min_size: int) -> DataFrame:
    """The patients as they may be published, after saying how many are alike."""
    told = hidden(patients, min_size).persist()
    found, num_hidden = groups(told.where("not is_hidden")), told.where("is_hidden").count()
    sizes = ", ".join(f"{band}: {number:,}" for band, number in found.num_patients.items())
    print(
        f"  {name}: {found.num_groups:,} groups alike in sex, birth year, age, state and ZIP3, the smallest of "
        f"{found.smallest:,}; patients by the size of theirs: {sizes}"
    )
    if min_size > 1:
        print(f"  {num_hidden:,} patients of groups smaller than {min_size} are published without these")
    return told.drop("is_hidden")


if __name__ == "__main__":
    sys.exit(main())
