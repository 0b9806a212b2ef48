"""Put the lake's tables and views into the metastore's catalog, so that a query names gold.score and no path."""

import sys

from medpipe import catalog, command, job
from medpipe.errors import MissingEnvironmentError


def main(argv: list[str] | None = None) -> int:
    parser = command.arguments("register_tables", __doc__)
    return job.main("register_tables", parser, argv, lambda work, args: register(work))


def register(work: job.Workplace) -> None:
    """Registers every table that exists; one that is registered already is pointed at its folder again.

    Raises:
        MissingEnvironmentError: NO_METASTORE, where the names would be gone with this session.
    """
    if work.lake.spark.conf.get("spark.sql.catalogImplementation") == "in-memory":
        raise MissingEnvironmentError(
            "NO_METASTORE",
            "this session's catalog is forgotten when it ends; run by spark-submit where a metastore is configured, or "
            'put "spark.sql.catalogImplementation" = "hive" under [spark] of --config (`medpipe sql` needs no catalog)',
        )
    for name in catalog.register(work.lake):
        print(name)


if __name__ == "__main__":
    sys.exit(main())
