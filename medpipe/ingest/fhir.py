"""FHIR R4 JSON -> bronze.record: bulk export (NDJSON, one resource a line) and bundles (one document a file).

A resource becomes fields by the path of each value, e.g. code.coding.0.system. An entry of a bundle that is a DELETE is
a row of `deleted/TYPE`; the files of a folder `deleted` hold nothing else. Source: HL7 FHIR R4 (hl7.org/fhir/R4), Bulk
Data Access IG 2.0 for the files of an export.
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import partial

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from medpipe.ingest.manifest import DeliveredFile
from medpipe.ingest.tabular import name_of, paths_of
from medpipe.mappings.mapping import DELETED, Mapping

RESOURCES, BUNDLES = (".ndjson", ".ndjson.gz"), (".json", ".json.gz")
ROWS = "source_table string, file string, fields map<string,string>, corrupt string, fault string"
_ARROW = pa.schema(
    [
        ("source_table", pa.string()),
        ("file", pa.string()),
        ("fields", pa.map_(pa.string(), pa.string())),
        ("corrupt", pa.string()),
        ("fault", pa.string()),
    ]
)
BATCH_ROWS = 1000


class _Refused(ValueError):
    """A document that cannot be taken; its code."""


def is_resources(file: DeliveredFile) -> bool:
    return file.name.lower().endswith(RESOURCES)


def is_bundles(file: DeliveredFile) -> bool:
    """Whether it is a bundle, or one a line, as an export tells what was deleted."""
    return file.name.lower().endswith(BUNDLES) or (is_resources(file) and file.is_deletions)


def resource_of(file: DeliveredFile, mapping: Mapping) -> str | None:
    """The resource type a bulk file is named after, e.g. Patient.000.ndjson.gz."""
    stem = file.name.lower().rsplit("/", 1)[-1].split(".")[0]
    return stem if stem in mapping.required and not file.is_deletions else None


def rows(spark: SparkSession, files: list[DeliveredFile], mapping: Mapping) -> list[DataFrame]:
    """source_table, file, fields, corrupt and fault of every resource.

    A line or document that cannot be read is one row: its table that of the file's name, else `bundle`.
    """
    lines = [file for file in files if is_resources(file)]
    bundles = [file for file in files if is_bundles(file) and not is_resources(file)]
    found = []
    for group, is_whole in ((lines, False), (bundles, True)):
        if group:
            text = spark.read.text(paths_of(group), wholetext=is_whole)
            tables = {file.name: DELETED if file.is_deletions else resource_of(file, mapping) for file in group}
            named = text.select(F.col("value").cast("binary").alias("value"), name_of(group).alias("file"))
            found.append(named.mapInArrow(partial(_resources, tables), ROWS))
    return found


def _resources(tables: dict[str, str | None], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    waiting: list[dict] = []
    for batch in batches:
        for content, file in zip(batch.column("value"), batch.column("file").to_pylist(), strict=True):
            for row in resources_of(content.as_py(), tables[file]):
                waiting.append(row | {"file": file})
                if len(waiting) >= BATCH_ROWS:
                    yield pa.RecordBatch.from_pylist(waiting, _ARROW)
                    waiting = []
    yield pa.RecordBatch.from_pylist(waiting, _ARROW)


def resources_of(content: bytes, table: str | None) -> Iterator[dict]:
    """The rows of a line, of a bundle (table None), or of a bundle of deletions (DELETED): source_table and fields, or
    corrupt and fault.

    Faults: ENCODING (not UTF-8), BAD_JSON, DUPLICATE_KEY, NOT_A_RESOURCE, NOT_A_DELETION.
    """
    if table is not None and not content.strip():
        return
    try:
        document = _parsed(content)
        entries = _entries(document) if table in (None, DELETED) else [(_kind(document), document)]
        for kind, _ in entries:
            if table == DELETED and not kind.startswith(DELETED):
                raise _Refused("NOT_A_DELETION")
            if table not in (None, DELETED, kind):
                raise _Refused("NOT_A_RESOURCE")
        # Sorted, so that the same resource in another order of keys has the same hash.
        found = [{"source_table": kind, "fields": sorted(_flat(content).items())} for kind, content in entries]
    except (_Refused, RecursionError) as refused:
        # What nests a thousand deep is no FHIR.
        fault = str(refused) if isinstance(refused, _Refused) else "BAD_JSON"
        text = content.decode("utf-8", "replace").replace("\0", "\ufffd")
        named = f"{table or ''}bundle" if table in (None, DELETED) else table
        found = [{"source_table": named, "fields": [], "corrupt": text, "fault": fault}]
    yield from found


def _parsed(content: bytes) -> object:
    """The JSON, numbers as they are written."""
    try:
        return json.loads(
            content.decode("utf-8-sig"),
            object_pairs_hook=_object,
            parse_int=str,
            parse_float=str,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError:
        raise _Refused("ENCODING") from None
    except json.JSONDecodeError:
        raise _Refused("BAD_JSON") from None


def _object(pairs: list[tuple[str, object]]) -> dict:
    if len({name for name, _ in pairs}) < len(pairs):
        # Which of the two holds cannot be known.
        raise _Refused("DUPLICATE_KEY")
    return dict(pairs)


def _no_constant(name: str) -> object:
    # NaN and Infinity are Python's, not JSON's.
    raise _Refused("BAD_JSON")


def _entries(document: object) -> list[tuple[str, dict]]:
    """Table and content of each resource and each deletion in a bundle; a resource without an id has its fullUrl."""
    if not isinstance(document, dict) or document.get("resourceType") != "Bundle":
        return [(_kind(document), document)]
    entries = document.get("entry", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _Refused("NOT_A_RESOURCE")
    return [_deletion(entry) or _entry(entry) for entry in entries]


def _entry(entry: dict) -> tuple[str, dict]:
    resource = {"id": entry.get("fullUrl")} | _resource(entry.get("resource"))
    return _kind(resource), resource


def _deletion(entry: dict) -> tuple[str, dict] | None:
    """Of a DELETE of Observation/123 the table and the entry, its url for an id; None of any other entry.

    One by a search (Observation?...) names no record, which is seen when its id is read.
    """
    request = entry.get("request")
    if not isinstance(request, dict) or request.get("method") != "DELETE":
        return None
    url = str(request.get("url"))
    named = re.fullmatch(r"(?:[^?]*/)?([A-Z][A-Za-z]+)(?:/[A-Za-z0-9.\-]{1,64}|\?.*)", url)
    if named is None:
        raise _Refused("NOT_A_DELETION")
    return DELETED + named[1].lower(), entry | {"id": url}


def _resource(found: object) -> dict:
    if not isinstance(found, dict):
        raise _Refused("NOT_A_RESOURCE")
    return found


def _kind(resource: object) -> str:
    kind = _resource(resource).get("resourceType")
    if not isinstance(kind, str) or not kind.isalpha():
        raise _Refused("NOT_A_RESOURCE")
    return kind.lower()


def _flat(value: object, path: str = "") -> dict[str, str]:
    """Path -> text of every value; null and empty ones are absent."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        return {
            name: text for key, part in inner for name, text in _flat(part, f"{path}.{key}" if path else key).items()
        }
    if value is None or value == "":
        return {}
    return {path: str(value).lower() if isinstance(value, bool) else str(value).replace("\0", "\ufffd")}
