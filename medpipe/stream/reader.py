"""Row groups of one Parquet file as Arrow record batches, through Petastorm: the only module that names it.

Petastorm's own worker copies every column (take, pandas, np.vstack), turns an int64 with a null into float64 and
cannot stack ragged lists. The worker here publishes the batches as the Parquet reader made them, from a thread of its
own, so that reading overlaps the model.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

with (
    warnings.catch_warnings()
):  # Petastorm 0.13.1 imports pyarrow's deprecated names, and takes its old filesystems only
    warnings.simplefilter("ignore")
    from petastorm.arrow_reader_worker import ArrowReaderWorker
    from petastorm.reader import Reader
    from petastorm.workers_pool import EmptyResultError
    from petastorm.workers_pool.thread_pool import ThreadPool, WorkerTerminationRequested
    from pyarrow import localfs
    from pyarrow.filesystem import DaskFileSystem, FileSystem

from medpipe.errors import ContractError, DataError, MissingEnvironmentError

# Batches waiting for the model: enough to overlap, little enough to keep a task's memory flat.
MAX_WAITING_BATCHES = 2
# Read of a column at a time. Without it pyarrow 14 takes whole column chunks into memory, with memory_map=True as well.
READ_BYTES = 1 << 18


def read(url: str, row_groups: Sequence[int], columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Record batches of at most `batch_rows` rows, in file order, with exactly `columns`, in that order.

    The reader is closed when the iterator ends, fails or is closed. A batch never spans two row groups.

    Args:
        url: a local path, taken as it is, or a URL that fsspec knows, decoded (%20 is a blank).
        row_groups: indices into the file; none gives no batch.
    Raises:
        ContractError: NO_COLUMN for a column the file lacks.
        MissingEnvironmentError: NO_FILESYSTEM for a URL that fsspec cannot open here.
        DataError: UNREADABLE_FILE when the file cannot be opened or decoded, ROW_GROUPS when it has fewer than planned.
    """
    if not row_groups:
        return
    reader = _open(url, tuple(row_groups), tuple(columns), batch_rows)
    try:
        unread = len(row_groups)
        while unread:
            result = reader.next_result()
            if result is _END:
                unread -= 1
            else:
                yield result
    except (OSError, pa.ArrowException) as failure:
        raise _unreadable(url, failure) from None
    finally:
        # Not Petastorm's own __exit__: it prints to stdout, which belongs to the job.
        reader.stop()
        reader.join()


def local_path(url: str) -> str | None:
    """The path of a file: URL (decoded), or the path itself; None for another scheme."""
    scheme = urlsplit(url).scheme if ":" in url.split("/", 1)[0] else ""
    if scheme not in ("", "file"):
        return None
    return unquote(url[len("file:") :]).replace("///", "/", 1) if scheme else url


def _place(url: str) -> tuple[FileSystem, str]:
    """The filesystem, as Petastorm wants it, and the path on it."""
    if (path := local_path(url)) is not None:
        return localfs, path
    try:
        files, path = fsspec.core.url_to_fs(unquote(url))
    except (ImportError, ValueError) as failure:
        raise MissingEnvironmentError(
            "NO_FILESYSTEM", f"{url}: {failure}; needed wherever the driver and the workers run"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Store(files), path


class _Store(DaskFileSystem):
    """An fsspec filesystem in the form of pyarrow's former ones."""

    def isdir(self, path: str) -> bool:
        return self.fs.isdir(path)

    def isfile(self, path: str) -> bool:
        return self.fs.isfile(path)


@contextmanager
def _parquet(files: FileSystem, path: str) -> Iterator[pq.ParquetFile]:
    """The open file. Of a local one no more than a few pages are in memory, however large its row groups are."""
    if isinstance(files, _Store):
        with files.open(path) as source, pq.ParquetFile(source, pre_buffer=True) as file:
            yield file
    else:
        with pq.ParquetFile(path, buffer_size=READ_BYTES) as file:
            yield file


def _open(url: str, row_groups: tuple[int, ...], columns: tuple[str, ...], batch_rows: int) -> "_PlannedReader":
    files, path = _place(url)
    try:
        with _parquet(files, path) as file:
            footer = file.metadata
    except (OSError, pa.ArrowException) as failure:
        raise _unreadable(url, failure) from None
    if max(row_groups) >= footer.num_row_groups:
        raise DataError(
            "ROW_GROUPS", f"{url} has {footer.num_row_groups} row groups, the plan names {max(row_groups)}: plan again"
        )
    known = footer.schema.to_arrow_schema().names
    missing = [column for column in columns if column not in known]
    if missing:
        raise ContractError("NO_COLUMN", f"{url} lacks {', '.join(missing)}; rebuild the table from its contract")
    worker = type("_PlannedWorker", (_ArrowWorker,), {"columns": columns, "batch_rows": batch_rows})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _PlannedReader(files, path, row_groups, columns, worker)


def _unreadable(url: str, failure: Exception) -> DataError:
    return DataError("UNREADABLE_FILE", f"{url}: {type(failure).__name__} while reading; restore the file or rebuild")


# Published after the last batch of each row group.
_END = object()


class _ArrowWorker(ArrowReaderWorker):
    """Publishes record batches without a copy, or the failure that stopped it."""

    columns: tuple[str, ...] = ()
    batch_rows = 0

    @staticmethod
    def new_results_queue_reader() -> None:
        """None: results are taken from the pool as they are."""

    def process(self, piece_index: int, worker_predicate: None, shuffle_row_drop_partition: tuple[int, int]) -> None:
        piece = self._split_pieces[piece_index]
        try:
            with _parquet(self._filesystem, piece.path) as file:
                names = list(self.columns)
                for batch in file.iter_batches(self.batch_rows, [piece.row_group], names, use_threads=False):
                    self.publish_func(batch.select(names))
            self.publish_func(_END)
        except WorkerTerminationRequested:
            raise
        except Exception as failure:
            # Raised in the consumer; left to Petastorm it would go to stderr as well.
            self.publish_func(failure)


class _PlannedReader(Reader):
    """Reads the row groups the driver planned, once, in file order, with one thread."""

    def __init__(
        self, files: FileSystem, path: str, row_groups: tuple[int, ...], columns: tuple[str, ...], worker: type
    ) -> None:
        self._planned = row_groups
        super().__init__(
            files,
            # A list: given a folder Petastorm would also read files the table has removed.
            [path],
            schema_fields=list(columns),
            worker_class=worker,
            reader_pool=ThreadPool(1, MAX_WAITING_BATCHES),
            num_epochs=1,
            shuffle_row_groups=False,
            is_batched_reader=True,
        )

    def next_result(self) -> pa.RecordBatch | object:
        """A batch, or _END.

        Petastorm asks first whether all work given out is done and then whether all has been given out. If the last
        row group is given out between the two questions, it reports the end and loses that row group; asked again it
        knows better.
        """
        try:
            return self._workers_pool.get_results()
        except EmptyResultError:
            return self._workers_pool.get_results()

    def _filter_row_groups(self, dataset, row_groups, *unused):
        return list(self._planned), None
