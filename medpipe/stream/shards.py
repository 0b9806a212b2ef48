"""Which rows of a pinned set of Parquet files one task reads. Pure: no Spark, no file is opened."""

from collections.abc import Iterable
from dataclasses import dataclass

from medpipe.errors import UsageError


@dataclass(frozen=True)
class ShardFile:
    """One active file of a pinned table version.

    Attributes:
        url: as the store names it, e.g. file:///lake/gold/sequence/part-0.parquet (URI-encoded).
        num_bytes: size in the table's log.
        row_group_rows: rows of each row group, in file order.
    """

    url: str
    num_bytes: int
    row_group_rows: tuple[int, ...]


@dataclass(frozen=True)
class Shard:
    """The work of one task: row groups of one file, by their index in it."""

    shard_id: int
    url: str
    row_groups: tuple[int, ...]
    num_rows: int

    def __str__(self) -> str:
        return f"{self.url}, row groups {', '.join(map(str, self.row_groups))}"


def plan(files: Iterable[ShardFile], max_rows: int) -> list[Shard]:
    """Shards that hold every row group of every file exactly once; shard_id is the position in the list.

    Row groups are never cut, so a shard has at most max(max_rows, the largest row group of its file) rows, and two
    neighbouring shards of a file together have more than max_rows. The order is by content (row groups, then size)
    and only then by url, as file names are random: the same files give the same plan in whatever order they come.

    Args:
        files: may be empty; a file without row groups gives no shard.
        max_rows: rows a task should read at most, >= 1.
    Raises:
        UsageError: BAD_MAX_ROWS.
    """
    if max_rows < 1:
        raise UsageError("BAD_MAX_ROWS", f"max_rows is {max_rows}, expected at least 1")
    shards: list[Shard] = []
    for file in sorted(files, key=lambda file: (file.row_group_rows, file.num_bytes, file.url)):
        for row_groups in _pack(file.row_group_rows, max_rows):
            num_rows = sum(file.row_group_rows[index] for index in row_groups)
            shards.append(Shard(len(shards), file.url, row_groups, num_rows))
    return shards


def _pack(row_group_rows: tuple[int, ...], max_rows: int) -> list[tuple[int, ...]]:
    """Neighbouring row groups put together while they fit."""
    packs: list[tuple[int, ...]] = []
    pack: list[int] = []
    rows = 0
    for index, num_rows in enumerate(row_group_rows):
        if pack and rows + num_rows > max_rows:
            packs.append(tuple(pack))
            pack, rows = [], 0
        pack.append(index)
        rows += num_rows
    return packs + ([tuple(pack)] if pack else [])
