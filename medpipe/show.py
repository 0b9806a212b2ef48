"""What stands in a lake, for people: the data dictionary, the ledger, the answer to a query."""

import argparse
import csv
import os
import re
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medpipe import contracts


def tables(argv: list[str]) -> int:
    """The data dictionary, from the contracts; reads no data.

    Raises:
        ContractError: UNKNOWN_TABLE.
    """
    parser = argparse.ArgumentParser("medpipe tables", description="Every table, or the columns of one.")
    parser.add_argument("table", nargs="?", help="e.g. gold.score")
    name = parser.parse_args(argv).table
    if name is None:
        rows = [(name, contracts.load(name).doc) for name in contracts.names()]
        _print(_table(["table", "meaning"], rows))
        return 0
    contract = contracts.load(name)
    print(contract.doc)
    if contract.view is not None:
        print(f"\nA view: {contract.view}")
        return 0
    columns = [
        (field.name, field.dataType.simpleString(), "" if field.nullable else "never", field.metadata["comment"])
        for field in contract.struct
    ]
    _print(_table(["column", "type", "null", "meaning"], columns))
    value_checks = [(check.code, check.sql) for check in contract.checks if not check.sql.endswith(" is not null")]
    if value_checks:
        _print(_table(["check", "holds when"], value_checks))
    print(f"A row is named by: {', '.join(contract.key)}")
    if contract.partition_by:
        print(f"A write replaces one: {', '.join(contract.partition_by)}")
    if contract.is_bitemporal:
        print("Append-only versions of records: a read as of a date keeps what was last known of each before it.")
    return 0


def sql(argv: list[str]) -> int:
    """Runs a query on the lake's tables by their names."""
    from medpipe import command, job

    parser = command.arguments("medpipe sql", "Query the lake's tables by name, e.g. gold.score.")
    parser.set_defaults(log=os.devnull)
    parser.add_argument("query", help='e.g. "select * from gold.current_score"')
    parser.add_argument("--rows", type=int, default=50, help="rows to show; default 50")
    parser.add_argument("--csv", action="store_true", help="print CSV instead of a table")
    return job.main("sql", parser, argv, lambda work, args: _answer(work.lake, args.query, args.rows, args.csv))


def history(argv: list[str]) -> int:
    """Prints the newest rows of ops.run."""
    from medpipe import command, job

    parser = command.arguments("medpipe history", "The ledger, newest run last.")
    parser.set_defaults(log=os.devnull)
    parser.add_argument("run_id", nargs="?", help="one run, with the tables it read and wrote")
    parser.add_argument("--rows", type=int, default=30, help="runs to show; default 30")
    return job.main("history", parser, argv, lambda work, args: _ledger(work.ledger.entries, args.run_id, args.rows))


def lines(columns: Sequence[str], rows: list) -> None:
    """Prints rows of text under their columns."""
    _print(_table(columns, rows))


def named_in(query: str) -> list[str]:
    """Tables and views of the contracts that a query names, and those its views name."""
    found = [name for name in contracts.names() if re.search(rf"(?<![\w.`]){re.escape(name)}(?!\w)", query.lower())]
    views = [contracts.load(name).view for name in found]
    return sorted(set(found) | {name for view in views if view for name in named_in(view)})


def _answer(lake, query: str, num_rows: int, as_csv: bool) -> None:
    from pyspark.errors import AnalysisException, ParseException

    from medpipe.catalog import register
    from medpipe.errors import UsageError

    register(lake, named_in(query))
    try:
        frame = lake.spark.sql(query)
    except (AnalysisException, ParseException) as failure:
        raise UsageError("BAD_QUERY", str(failure).partition("\n")[0]) from None
    rows = frame.limit(num_rows + 1).collect()
    shown = [["" if value is None else str(value) for value in row] for row in rows[:num_rows]]
    if as_csv:
        csv.writer(sys.stdout).writerows([frame.columns, *shown])
    else:
        _print(_table(frame.columns, shown))
    if len(rows) > num_rows:
        print(f"more rows than {num_rows}; see --rows", file=sys.stderr)


def _ledger(entries: list, run_id: str | None, num_rows: int) -> None:
    if run_id is not None:
        for entry in [entry for entry in entries if entry.run_id == run_id]:
            _print(_table(["", entry.job], [(name, _text(value)) for name, value in vars(entry).items()]))
        return
    columns = ["finished", "job", "target", "status", "in", "out", "quarantined", "seconds", "run"]
    _print(_table(columns, [_line(entry) for entry in entries[-num_rows:]]))


def _line(entry) -> list[str]:
    rows = [_text(count) for count in (entry.rows_in, entry.rows_out, entry.rows_quarantined)]
    outcome = entry.error_code or entry.status
    return [
        f"{entry.finished_at:%Y-%m-%d %H:%M}",
        entry.job,
        entry.target,
        outcome,
        *rows,
        f"{entry.seconds:.1f}",
        entry.run_id,
    ]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(" ".join(str(part) for part in item) for item in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table(columns: Sequence[str], rows: list) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*[escape(cell) for cell in row])
    return table


def _print(table: Table) -> None:
    # A pipe has no width: let every column have what it needs.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
