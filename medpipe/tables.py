"""The lake: where tables live, how they are read as of a date, and the one way they are written."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import delta.exceptions
import pyarrow as pa
from delta.exceptions import captured
from delta.tables import DeltaTable
from py4j.java_gateway import JavaObject
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import ArrayType, StructType

from medpipe import contracts, staging, statements
from medpipe.errors import ConflictError, ContractError, DataError, UsageError
from medpipe.snapshots import Snapshot

PHI_ZONES = ("phi", "bronze")
PUBLISHED_ZONES = ("safe_harbor", "limited")
RETENTION = "delta.deletedFileRetentionDuration"
# Importing `captured` is what makes PySpark raise them; they have no base of their own.
CONFLICTS = tuple(getattr(captured, name) for name in delta.exceptions.__all__)


@dataclass(frozen=True)
class Written:
    """One commit: the table, the Delta version that holds it, and the rows it put there."""

    table: str
    version: int
    num_rows: int


@dataclass(frozen=True)
class Lake:
    """Roots of Delta tables: `phi_root` holds what identifies patients, `root` what does not.

    Attributes:
        published_root: what people outside may read; "" for one beside the lake, LAKE-published.
        timezone: the hospital's; as_of is midnight there.
        run_id: stamped on every row written; None for a lake that is only read.
        pinned: version and rows of the tables read so far: a run sees one version of each, or its own newest commit.
        inputs: the first version read of each table.
        written: the commits of this run, in order.
        staged: folders for copies of what `shards` gave.
    """

    spark: SparkSession
    root: str
    phi_root: str
    timezone: str = "UTC"
    run_id: str | None = None
    pinned: dict[str, tuple[int, DataFrame]] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    written: list[Written] = field(default_factory=list)
    staged: list[str] = field(default_factory=list)
    published_root: str = ""

    def for_run(self, run_id: str) -> "Lake":
        """The same lake with nothing pinned and nothing written, whose rows carry `run_id`."""
        return Lake(self.spark, self.root, self.phi_root, self.timezone, run_id, published_root=self.published_root)

    def path(self, name: str) -> str:
        """Folder of a table."""
        zone, table = name.split(".")
        if zone in PUBLISHED_ZONES:
            return f"{self.published_root or f'{self.root}-published'}/{zone}/{table}"
        return f"{self.phi_root if zone in PHI_ZONES else self.root}/{zone}/{table}"

    def exists(self, name: str) -> bool:
        return self._newest(name) >= 0

    def version(self, name: str) -> int:
        """The table's newest Delta version; the first call of a run pins it."""
        if name not in self.pinned:
            self._pin(name, self._newest(name))
            self.inputs.setdefault(name, self.pinned[name][0])
        return self.pinned[name][0]

    def read(self, name: str, as_of: date | None = None, where: dict | None = None) -> DataFrame:
        """What the table says as of a date.

        Args:
            name: as gold.score. A table not yet written reads as empty, so that the first night is no special case.
            as_of: for a bitemporal table, the last version of each record known before that midnight, deleted records
                left out; for others, the rows of that logical date. None takes all rows (bitemporal: all known).
            where: column -> value; only rows that equal all.
        """
        contract = contracts.load(name)
        if not contract.is_bitemporal:
            return self._rows(name, ({"as_of": as_of} if as_of else {}) | (where or {}))
        latest = contracts.latest(self.history(name, as_of), contract.key)
        return latest.where(~F.col("is_deleted")).where(_predicate(where or {}))

    def history(self, name: str, as_of: date | None = None) -> DataFrame:
        """Every version of a bitemporal table's records known before as_of."""
        rows = self._rows(name, {})
        return rows.where(F.col("known_at") < F.lit(self.midnight(as_of))) if as_of else rows

    def midnight(self, day: date) -> datetime:
        """When that day begins in the hospital, as an aware UTC instant."""
        return datetime.combine(day, time(), ZoneInfo(self.timezone)).astimezone(UTC)

    def replace(self, frame: DataFrame, name: str, where: dict) -> Written:
        """Makes `frame` the table's rows for one partition, in one commit; the same run again writes nothing.

        Raises:
            ContractError: SCHEMA_MISMATCH; CHECK_FAILED names the check, never the row.
            ConflictError: CONCURRENT_WRITE.
        """
        contract = contracts.load(name)
        if set(where) - set(contract.partition_by):
            raise ContractError(
                "NOT_A_PARTITION", f"{name} is replaced by {contract.partition_by}, found {sorted(where)}"
            )
        rows = contracts.conform(self._stamped(frame), name)
        self._create(name)
        told = f"{self.run_id} {statements.equal(where)}"
        before = self._newest(name)
        if not self._holds(name, told, before):
            writer = rows.write.format("delta").mode("overwrite").option("replaceWhere", statements.equal(where))
            self._commit(name, lambda: writer.option("userMetadata", told).save(self.path(name)))
        return self._record(name, told, before)

    def append(self, frame: DataFrame, name: str, once: str | None = None) -> Written:
        """Adds rows in one commit; the same `once` (default: this run) again adds nothing."""
        is_stamped = contracts.load(name).struct.names[-1] == "run_id"
        rows = contracts.conform(self._stamped(frame) if is_stamped else frame, name)
        self._create(name)
        told, before = once or self.run_id, self._newest(name)
        writer = rows.write.format("delta").mode("append").option("userMetadata", told)
        # A table's own transaction id: Delta skips a pair it has seen.
        writer = writer.option("txnAppId", f"medpipe/{name}/{told}").option("txnVersion", 1)
        self._commit(name, lambda: writer.save(self.path(name)))
        return self._record(name, told, before)

    def log(self, rows: list[tuple], name: str) -> None:
        """Adds rows that say what happened just now, values in the contract's order; nothing else waits for them.

        A transaction id for each would stay in the table's log for good, and be read at every commit.
        """
        struct = contracts.load(name).struct
        self._create(name)
        # Arrow rows are planned as they are; Python objects would take a job of their own.
        frame = self.spark.createDataFrame(_arrow(rows, struct), struct)
        writer = contracts.conform(frame, name).write.format("delta").mode("append")
        self._commit(name, lambda: writer.save(self.path(name)))

    def shards(self, name: str, where: dict, columns: list[str]) -> Snapshot:
        """The files of one partition of a gold table, fit to be read without Spark; see staging.readable.

        A copy stands until `unstage`, and for this run alone.
        """
        here = {column: str(value) for column, value in where.items()}
        folder, version = f"{self.root}/ops/staged/{name}/{'.'.join(here.values())}", self.version(name)
        self.staged.append(folder)
        return staging.readable(
            self.spark, self.path(name), f"{folder}/{self.run_id}-{version}", here, columns, version
        )

    def unstage(self) -> None:
        """Takes away the copies `shards` has made, and those that killed runs have left of the same partitions."""
        for folder in self.staged:
            staging.remove(folder)

    def erase(self, name: str, keys: DataFrame) -> Written:
        """Takes out the rows that agree with a row of `keys` in all its columns; older versions still hold them."""
        self._create(name)
        same = " and ".join(f"rows.`{column}` <=> keys.`{column}`" for column in keys.columns)
        table = DeltaTable.forPath(self.spark, self.path(name)).alias("rows")
        before = self._newest(name)
        # By a join: a literal would stand in the table's log.
        merge = table.merge(keys.distinct().alias("keys"), same).whenMatchedDelete()
        self._commit(name, merge.execute)
        after = self._newest(name)
        metrics = self._commit_info(name, after).get("operationMetrics", {}) if after > before else {}
        return Written(name, after, int(metrics.get("numTargetRowsDeleted", 0)))

    def vacuum_now(self, name: str) -> None:
        """Removes the files of all versions but the newest; the table keeps older ones again afterwards."""
        table = DeltaTable.forPath(self.spark, self.path(name))
        kept = table.detail().first().properties.get(RETENTION)
        self._set(name, f"set tblproperties ('{RETENTION}' = 'interval 0 hours')")
        try:
            table.vacuum()
        finally:
            restored = (
                f"set tblproperties ('{RETENTION}' = '{kept}')" if kept else f"unset tblproperties ('{RETENTION}')"
            )
            self._set(name, restored)

    def remove_copies(self) -> None:
        """Takes away every copy that any run has made of a table's partition."""
        staging.remove(f"{self.root}/ops/staged")

    def count(self, name: str, where: dict) -> int:
        """Rows committed for a partition, counted afresh from the newest version."""
        return self.spark.read.format("delta").load(self.path(name)).where(_predicate(where)).count()

    def _rows(self, name: str, where: dict) -> DataFrame:
        contract = contracts.load(name)
        if not self.exists(name):
            return self.spark.createDataFrame([], contract.struct)
        self.version(name)
        return self.pinned[name][1].where(_predicate(where))

    def _pin(self, name: str, version: int) -> None:
        rows = self.spark.read.format("delta").option("versionAsOf", version).load(self.path(name))
        # What is only read is left as it is.
        nulls = {field.name: F.lit(None).cast(field.dataType) for field in contracts.gained(name, rows.schema)}
        self.pinned[name] = version, rows.withColumns(nulls) if nulls else rows

    def _stamped(self, frame: DataFrame) -> DataFrame:
        if self.run_id is None:
            raise UsageError("READ_ONLY", "this lake was opened to read; write inside a step")
        return frame.withColumn("run_id", F.lit(self.run_id))

    def _create(self, name: str) -> None:
        """Makes the table; one that is there gets the columns that its contract has gained, and no file is touched."""
        snapshot = self._snapshot(name)
        if snapshot.version() >= 0:
            have = StructType.fromJson(json.loads(snapshot.schema().json()))
            if gained := contracts.gained(name, have):
                self._set(name, statements.columns_added(name, gained))
            return
        contract = contracts.load(name)
        builder = DeltaTable.createIfNotExists(self.spark).location(self.path(name)).comment(contract.doc)
        for column in contract.struct:
            comment = column.metadata["comment"]
            builder = builder.addColumn(column.name, column.dataType, nullable=column.nullable, comment=comment)
        for check in contract.checks:
            if not check.sql.endswith(" is not null"):
                # Delta takes null for a violation, SQL and our contracts do not.
                builder = builder.property(f"delta.constraints.{_constraint(check)}", f"coalesce({check.sql}, true)")
        if contract.label is not None:
            builder = builder.property("medpipe.disclosure", contract.label)
        # Column statistics keep real values, birth dates for one, in the log; a choice by partition needs none.
        builder = builder.property("delta.dataSkippingNumIndexedCols", "0")
        builder = builder.property("delta.enableDeletionVectors", "false")
        self._commit(name, builder.partitionedBy(*contract.partition_by).execute)

    def _holds(self, name: str, told: str, newest: int) -> bool:
        """Whether the table's last commit is this run's of this partition: it was killed before the ledger knew."""
        return self._commit_info(name, newest).get("userMetadata") == told

    def _commit(self, name: str, write: Callable[[], None]) -> None:
        """The only place where a table changes."""
        try:
            write()
        except CONFLICTS:
            raise ConflictError("CONCURRENT_WRITE", f"{name} was changed by another run meanwhile; run again") from None
        except PySparkException as failure:
            broken = next((c.code for c in contracts.load(name).checks if _constraint(c) in str(failure)), None)
            if "DELTA_VIOLATE_CONSTRAINT" in str(failure) or "DELTA_NOT_NULL" in str(failure):
                raise DataError(
                    "CHECK_FAILED",
                    f"{name}: rows break {broken or 'a NOT NULL column'}; nothing was written; "
                    "find them with the contract's check",
                ) from None
            raise

    def _set(self, name: str, what: str) -> None:
        self._commit(name, lambda: self.spark.sql(f"alter table delta.`{self.path(name)}` {what}"))

    def _newest(self, name: str) -> int:
        """-1 where there is no table."""
        return self._snapshot(name).version()

    def _snapshot(self, name: str) -> JavaObject:
        # Asked of the log itself: DeltaTable tells it by a Spark job.
        none = self.spark._jvm.scala.Option.empty()
        return self._log(name).update(False, none, none)

    def _commit_info(self, name: str, version: int) -> dict:
        """What a commit says of itself (Delta PROTOCOL.md, Commit Provenance Information)."""
        log = self._log(name)
        file = self.spark._jvm.org.apache.hadoop.fs.Path(f"{self.path(name)}/_delta_log/{version:020d}.json")
        lines = log.store().read(file, log.newDeltaHadoopConf()).mkString("\n").split("\n")
        return next((action["commitInfo"] for action in map(json.loads, lines) if "commitInfo" in action), {})

    def _log(self, name: str) -> JavaObject:
        return self.spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(self.spark._jsparkSession, self.path(name))

    def _record(self, name: str, told: str, before: int) -> Written:
        """What the commit that says `told` wrote; of nothing Delta makes no commit, and others' may have come since."""
        newest = self._newest(name)
        written = Written(name, newest, 0)
        for version in range(newest, before - 1, -1):
            info = self._commit_info(name, version)
            if info.get("userMetadata") == told:
                written = Written(name, version, int(info.get("operationMetrics", {}).get("numOutputRows", 0)))
                break
        self._pin(name, written.version)
        self.written.append(written)
        return written


def _constraint(check: contracts.Check) -> str:
    return f"medpipe_{check.code.lower()}"


def _predicate(where: dict):
    condition = F.lit(True)
    for column, value in where.items():
        condition = condition & (F.col(column) == F.lit(value))
    return condition


def _arrow(rows: list[tuple], struct: StructType) -> pa.Table:
    """The rows as Arrow; arrays of structs may hold plain tuples."""

    def value(item, kind):
        if isinstance(kind, ArrayType):
            return [value(part, kind.elementType) for part in item]
        return dict(zip(kind.names, item, strict=True)) if isinstance(kind, StructType) else item

    told = [{c.name: value(item, c.dataType) for c, item in zip(struct, row, strict=True)} for row in rows]
    return pa.Table.from_pylist(told, schema=to_arrow_schema(struct))
