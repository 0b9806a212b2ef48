"""How strongly each patient's record speaks for each treatment, from drug events (gold.rating)."""

import sys

from medpipe import job
from medpipe.features.ratings import ratings


@job.step(reads={"silver.event": {}}, writes=("gold.rating",))
def main(run: job.Run) -> None:
    rated = ratings(run.lake.read("silver.event", run.as_of), run.as_of)
    run.lake.replace(rated, "gold.rating", where=run.partition)


if __name__ == "__main__":
    sys.exit(main())
