"""Parts of SQL statements on Delta tables, as text; what comes from outside is quoted, so none of it is read as SQL."""

from datetime import date

from pyspark.sql.types import StructField

from medpipe import contracts


def equal(where: dict) -> str:
    """A replaceWhere predicate: every column (string or date) has its value."""
    parts = []
    for column, value in sorted(where.items()):
        kind = "DATE" if isinstance(value, date) else ""
        parts.append(f"{column} = {kind}'{quoted(str(value))}'")
    return " and ".join(parts)


def columns_added(name: str, gained: list[StructField]) -> str:
    """Of ALTER TABLE: columns of a table's contract that may be null, each where the contract has it."""
    names = contracts.load(name).struct.names
    before = dict(zip(names, [None, *names], strict=False))
    told = [
        f"`{field.name}` {field.dataType.simpleString()} comment '{quoted(field.metadata['comment'])}' "
        + (f"after `{before[field.name]}`" if before[field.name] else "first")
        for field in gained
    ]
    return f"add columns ({', '.join(told)})"


def quoted(text: str) -> str:
    """What stands between quotes."""
    return text.replace("\\", "\\\\").replace("'", "\\'")
