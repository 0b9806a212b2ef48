"""How strongly each patient's record speaks for each treatment, from drug events (gold.rating)."""

import sys

from pyspark.sql import functions as F

from medpipe import job
from medpipe.features.ratings import ratings


@job.step(reads={"silver.event": {}}, writes=("gold.rating",), settings=("rating",))
def main(run: job.Run) -> None:
    lake, settings = run.lake, run.settings.rating
    rated = ratings(lake.read("silver.event", run.as_of), run.as_of, settings, lake.timezone)
    written = lake.replace(rated, "gold.rating", where=run.partition)
    if settings.outcome:
        num_told = lake.read("gold.rating", run.as_of).agg(F.count("outcome")).first()[0]
        print(f"  {num_told:,} of {written.num_rows:,} ratings have an outcome (rating.outcome)")


if __name__ == "__main__":
    sys.exit(main())
