"""Files of SMILES, with or without measurements -> bronze.record. CSV or TSV with a header, plain or gzip.

A line is a row: what is wrong with one line never moves into the next.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from medpipe.errors import ContractError, DataError, UsageError
from medpipe.ingest.manifest import DeliveredFile, Delivery
from medpipe.molecules.mapping import FileMapping, mapping_of

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
SMILES_NAMES = ("smiles", "canonical_smiles", "mol")
# A longer line would fill a worker's memory; the longest SMILES that RDKit is given has 500 characters.
MAX_LINE = 1_000_000
BATCH_ROWS = 4096
READ = pa.schema(
    [
        pa.field("source_table", pa.string()),
        pa.field("file", pa.string()),
        pa.field("fields", pa.map_(pa.string(), pa.string())),
        pa.field("corrupt", pa.string()),
    ]
)
READ_SQL = "source_table string, file string, fields map<string,string>, corrupt string"


@dataclass(frozen=True)
class MoleculeFile:
    """A delivered file that holds molecules.

    Attributes:
        source_table: its name without suffix, lower case.
        header: its columns, lower case, in the order of the file.
        mapping: what they mean; `smiles` is always told.
    """

    name: str
    path: str
    source_table: str
    separator: str
    header: tuple[str, ...]
    mapping: FileMapping


def molecule_files(delivery: Delivery, mappings: tuple[FileMapping, ...]) -> list[MoleculeFile]:
    """The delivery's files that a mapping names or that have a column named like SMILES; the others hold no molecules.

    Raises:
        UsageError: BAD_MAPPING where a pattern matches no file, or several match one.
        DataError: NOTHING_TO_READ, BAD_HEADER.
        ContractError: MISSING_COLUMN, DUPLICATE_COLUMN, DUPLICATE_TABLE.
    """
    delivered = {file.name: mapping_of(file.name, mappings) for file in delivery.files}
    unused = [mapping.pattern for mapping in mappings if mapping not in delivered.values()]
    if unused:
        raise UsageError(
            "BAD_MAPPING", f"no file of {delivery.delivery_id} is named like {', '.join(unused)}; mend the mapping"
        )
    found = [_molecule_file(file, delivered[file.name]) for file in delivery.files]
    files = [file for file in found if file is not None]
    if not files:
        raise DataError(
            "NOTHING_TO_READ",
            f"no {', '.join(SUFFIXES)} of {delivery.delivery_id} has a column named {', '.join(SMILES_NAMES)}; "
            "name its column in molecules.toml",
        )
    tables = [file.source_table for file in files]
    twice = sorted({table for table in tables if tables.count(table) > 1})
    if twice:
        raise ContractError("DUPLICATE_TABLE", f"{', '.join(twice)} is delivered in two files; rename one")
    return files


def records(spark: SparkSession, delivery: Delivery, files: list[MoleculeFile]) -> DataFrame:
    """Columns of bronze.record for every line after the header of the files. Each file is read by one task.

    Raises, when it is computed:
        DataError: TRUNCATED_FILE, BAD_ENCODING, LINE_TOO_LONG, with file and line.
    """
    numbers = spark.createDataFrame([(number,) for number in range(len(files))], "number int")
    rows = numbers.repartition(len(files), "number").mapInArrow(partial(_read, files), READ_SQL)
    content = F.concat_ws("\n", F.to_json("fields"), "corrupt")
    named = rows.withColumn("record_hash", F.left(F.sha2(content, 256), F.lit(32)))
    copies = Window.partitionBy("source_table", "record_hash").orderBy("file")
    fault = F.when(F.col("corrupt").isNotNull(), "FIELD_COUNT")
    counted = named.withColumns({"occurrence": F.row_number().over(copies), "fault": fault})
    return counted.withColumns({name: F.lit(getattr(delivery, name)) for name in ("source", "delivery_id", "known_at")})


def _molecule_file(file: DeliveredFile, mapping: FileMapping | None) -> MoleculeFile | None:
    suffix = next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), None)
    if suffix is None and mapping is not None:
        raise UsageError("BAD_MAPPING", f"{file.name} is mapped, but its name ends with none of {', '.join(SUFFIXES)}")
    if suffix is None:
        return None
    separator, header = _header(file)
    told = mapping or FileMapping(file.name)
    smiles = told.smiles or next((name for name in SMILES_NAMES if name in header), None)
    if mapping is None and smiles is None:
        return None
    missing = sorted((told.columns | {smiles or " or ".join(SMILES_NAMES)}) - set(header))
    if missing:
        # What was found is not said: without a header it would be a row.
        raise ContractError("MISSING_COLUMN", f"{file.name}: no column {', '.join(missing)} in its first line")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ContractError("DUPLICATE_COLUMN", f"{file.name}: {', '.join(twice)} stands more than once in the header")
    # A point would make it a part of another table.
    table = file.name[: -len(suffix)].lower().replace(".", "_")
    return MoleculeFile(file.name, str(file.path.resolve()), table, separator, header, replace(told, smiles=smiles))


def _header(file: DeliveredFile) -> tuple[str, tuple[str, ...]]:
    try:
        with _opened(str(file.path)) as text:
            line = text.readline(MAX_LINE).rstrip("\n")
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(
            "BAD_HEADER", f"{file.name}: the first line is not UTF-8 text; deliver UTF-8 CSV or TSV, plain or gzip"
        ) from None
    separator = "\t" if "\t" in line and "," not in line else ","
    return separator, tuple(name.strip().lower() for name in next(csv.reader([line], delimiter=separator), []))


def _opened(path: str):
    opened = gzip.open if Path(path).suffix.lower() == ".gz" else open
    return opened(path, "rt", encoding="utf-8-sig")


def _read(files: list[MoleculeFile], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches of READ: the rows of the files whose numbers are given."""
    for number in (number for batch in batches for number in batch.column(0).to_pylist()):
        file = files[number]
        lines = _lines(file)
        while rows := [_row(file, line) for line in islice(lines, BATCH_ROWS)]:
            fields, corrupt = zip(*rows, strict=True)
            columns = [[file.source_table] * len(rows), [file.name] * len(rows), fields, corrupt]
            arrays = [pa.array(values, field.type) for values, field in zip(columns, READ, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=READ)


def _lines(file: MoleculeFile) -> Iterator[str]:
    """Lines after the header, without their ends."""
    number = 0
    try:
        with _opened(file.path) as text:
            while line := text.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise DataError("LINE_TOO_LONG", f"{file.name}: line {number} has over {MAX_LINE} characters")
                if number > 1:
                    yield line.rstrip("\n")
    except UnicodeDecodeError:
        raise DataError(
            "BAD_ENCODING", f"{file.name}: after line {number} bytes are not UTF-8; deliver UTF-8"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError("TRUNCATED_FILE", f"{file.name}: gzip ends after line {number}; ask for it again") from None


def _row(file: MoleculeFile, line: str) -> tuple[list[tuple[str, str]], str | None]:
    """Column and text of what is not empty, sorted by column; or nothing and the line, where it does not fit."""
    try:
        cells = next(csv.reader([line], delimiter=file.separator, strict=True)) or [""]
    except csv.Error:
        return [], line
    if len(cells) != len(file.header):
        return [], line
    # Sorted, so that the same row in another column order has the same hash.
    return sorted((name, cell) for name, cell in zip(file.header, cells, strict=True) if cell != ""), None
