"""The session's catalog: the lake's tables and views by name, so that a query says gold.score and no path."""

from medpipe import contracts
from medpipe.errors import ConflictError
from medpipe.tables import Lake


def register(lake: Lake, names: list[str] | None = None) -> list[str]:
    """Puts the tables that exist, and the views over them, into the session's catalog; returns their names.

    Args:
        names: only these; None takes all.
    Raises:
        ConflictError: OTHER_TABLE where a table of that name lies elsewhere.
    """
    registered = []
    wanted = contracts.names() if names is None else names
    for name in wanted:
        contract = contracts.load(name)
        zone = name.split(".")[0]
        if contract.view is None and lake.exists(name):
            lake.spark.sql(f"create database if not exists {zone}")
            _register(lake, name)
            registered.append(name)
    for name in wanted:
        contract = contracts.load(name)
        if contract.view is not None and all(source in registered for source in _sources(contract.view)):
            lake.spark.sql(f"create or replace view {name} as {contract.view}")
            registered.append(name)
    return registered


def _register(lake: Lake, name: str) -> None:
    """Names the table in the catalog; one of that name elsewhere is somebody's and stays."""
    location = lake.path(name).replace("'", "\\'")
    if not lake.spark.catalog.tableExists(name):
        lake.spark.sql(f"create table {name} using delta location '{location}'")
        return
    found = lake.spark.sql(f"describe detail {name}").first().location.removeprefix("file:")
    if found.rstrip("/") != lake.path(name).removeprefix("file:").rstrip("/"):
        raise ConflictError(
            "OTHER_TABLE", f"the catalog's {name} lies at {found}, not at {lake.path(name)}; drop it first"
        )


def _sources(view: str) -> set[str]:
    return {name for name in contracts.names() if name in view}
