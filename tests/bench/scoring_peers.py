"""The peers of scoring.py: each one's shortest correct form that reads the same table, scores and writes Parquet.

All of them call `score_of`: the registered model in its registered form, loaded once per process, on dense arrays.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType
from torch import Tensor

from medpipe.recipes import Recipe, Trained, ready
from medpipe.stream.reader import local_path
from medpipe.stream.tokens import encode

warnings.filterwarnings("ignore", "The given NumPy array is not writable")
SCORES = "id string, score float"
# Rows of a batch where the peer lets one choose; medpipe reads as many.
BATCH_ROWS = 8192

# (model's arguments from dense (B, width) arrays of the columns and the model): one per recipe.
Tensors = Callable[[list[np.ndarray], Trained], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Work:
    """What is to be scored; it travels to the workers.

    Attributes:
        columns: that a peer reads: the row's name, then arrays.
        widths: elements in a row of each array.
        path: Delta table, one partition. urls: its files.
    """

    recipe: Recipe
    load: Callable[[], Trained]
    tensors: Tensors
    columns: tuple[str, ...]
    widths: tuple[int, ...]
    path: str
    urls: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        return [local_path(url) for url in self.urls]


def vector_tensors(arrays: list[np.ndarray], trained: Trained) -> tuple[Tensor, ...]:
    return (torch.from_numpy(arrays[0]),)


def event_tensors(arrays: list[np.ndarray], trained: Trained) -> tuple[Tensor, ...]:
    concepts, days, amounts = arrays
    tokens, z = encode(trained.vocabulary, concepts.ravel(), amounts.ravel())
    parts = tokens.reshape(days.shape).astype(np.int64), days.astype(np.float32), z.reshape(days.shape)
    return *(torch.from_numpy(part) for part in parts), torch.full((len(days),), days.shape[1])


def pixel_tensors(arrays: list[np.ndarray], trained: Trained) -> tuple[Tensor, ...]:
    size = trained.config["height"], trained.config["width"]
    return (torch.from_numpy(arrays[0].reshape(-1, 1, *size)).float().div_(255.0),)


_LOADED: dict[str, tuple[torch.nn.Module, Trained]] = {}


def loaded(work: Work) -> tuple[torch.nn.Module, Trained]:
    """The model, once per process and with one thread."""
    torch.set_num_threads(1)
    if work.path not in _LOADED:
        trained = work.load()
        _LOADED[work.path] = ready(work.recipe, trained), trained
    return _LOADED[work.path]


def score_of(work: Work, arrays: list[np.ndarray]) -> np.ndarray:
    """Scores float32 (N,) of dense (N, width) arrays."""
    model, trained = loaded(work)
    scores, size = np.empty(len(arrays[0]), np.float32), trained.form.batch_size
    with torch.inference_mode():
        for start in range(0, len(scores), size):
            inputs = work.tensors([array[start : start + size] for array in arrays], trained)
            scores[start : start + size] = work.recipe.scores(model(*inputs)).numpy()
    return scores


def dense(array: pa.Array, width: int) -> np.ndarray:
    """A list or binary column of one width as (N, width), a view."""
    if pa.types.is_binary(array.type):
        start = array.offset * width
        return np.frombuffer(array.buffers()[2], np.uint8)[start : start + len(array) * width].reshape(-1, width)
    return array.flatten().to_numpy().reshape(-1, width)


def stacked(values: np.ndarray, width: int) -> np.ndarray:
    """An object array of bytes or of arrays as (N, width)."""
    if values.dtype != object:
        return values.reshape(-1, width)
    is_bytes = isinstance(values[0], bytes)
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, width) if is_bytes else np.stack(values)


def result(ids, scores: np.ndarray) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([ids, pa.array(scores)], ["id", "score"])


def by_arrow(work: Work, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        arrays = [dense(batch.column(name), width) for name, width in zip(work.columns[1:], work.widths, strict=True)]
        yield result(batch.column(0), score_of(work, arrays))


def by_pandas(work: Work, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    for frame in frames:
        pairs = zip(work.columns[1:], work.widths, strict=True)
        arrays = [stacked(frame[name].to_numpy(), width) for name, width in pairs]
        yield pd.DataFrame({"id": frame[work.columns[0]], "score": score_of(work, arrays)})


def by_udf(work: Work) -> Callable:
    """predict_batch_udf counts the parameters, so each is spelt out."""

    def score(*columns: np.ndarray) -> np.ndarray:
        return score_of(work, [stacked(c, width) for c, width in zip(columns, work.widths, strict=True)])

    return (lambda a: score(a)) if len(work.widths) == 1 else (lambda a, b, c: score(a, b, c))


def by_petastorm(work: Work, plans: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows are counted: the stock reader can lose some without a word."""
    warnings.simplefilter("ignore")
    from petastorm import make_batch_reader

    for file in (file for plan in plans for file in plan.column(0).to_pylist()):
        num_rows = 0
        with make_batch_reader(
            [f"file://{file}"], schema_fields=list(work.columns), num_epochs=1, shuffle_row_groups=False
        ) as reader:
            for rows in reader:
                pairs = zip(work.columns[1:], work.widths, strict=True)
                scores = score_of(work, [stacked(getattr(rows, name), width) for name, width in pairs])
                num_rows += len(scores)
                yield result(pa.array(getattr(rows, work.columns[0]), pa.string()), scores)
        if num_rows != pq.read_metadata(file).num_rows:
            raise AssertionError(f"{num_rows} rows read of {file}")


def by_loader(work: Work, converter, shards: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    warnings.simplefilter("ignore")
    from petastorm.pytorch import BatchedDataLoader

    options = {"num_epochs": 1, "workers_count": 1, "shuffle_row_groups": False}
    for shard in (shard for batch in shards for shard in batch.column(0).to_pylist()):
        with converter.make_torch_dataloader(
            BATCH_ROWS,
            cur_shard=shard,
            shard_count=len(converter.file_urls),
            data_loader_fn=BatchedDataLoader,
            **options,
        ) as loader:
            for rows in loader:
                ids = pa.array(rows["id"].numpy()).cast(pa.string())
                yield result(ids, score_of(work, [rows[name].numpy() for name in work.columns[1:]]))


def read(spark: SparkSession, work: Work) -> DataFrame:
    return spark.read.format("delta").load(work.path).select(*work.columns)


def write(frame: DataFrame, out: str) -> None:
    frame.write.mode("overwrite").parquet(out)


def map_in_arrow(spark: SparkSession, work: Work, out: str) -> None:
    write(read(spark, work).mapInArrow(partial(by_arrow, work), SCORES), out)


def map_in_pandas(spark: SparkSession, work: Work, out: str) -> None:
    write(read(spark, work).mapInPandas(partial(by_pandas, work), SCORES), out)


def predict_udf(spark: SparkSession, work: Work, out: str) -> None:
    rows = read(spark, work)
    is_binary = dict(rows.dtypes)[work.columns[1]] == "binary"
    shapes = None if is_binary else [[width] for width in work.widths]
    udf = predict_batch_udf(
        partial(by_udf, work), return_type=FloatType(), batch_size=BATCH_ROWS, input_tensor_shapes=shapes
    )
    write(rows.select(F.col(work.columns[0]).alias("id"), udf(*work.columns[1:]).alias("score")), out)


def batch_reader(spark: SparkSession, work: Work, out: str) -> None:
    files = spark.createDataFrame(
        spark.sparkContext.parallelize([(f,) for f in work.files], len(work.files)), "f string"
    )
    write(files.mapInArrow(partial(by_petastorm, work), SCORES), out)


def spark_converter(spark: SparkSession, work: Work, out: str) -> None:
    """Its loader knows no strings: the row is named by a number."""
    warnings.simplefilter("ignore")
    from petastorm.spark import SparkDatasetConverter, make_spark_converter

    spark.conf.set(SparkDatasetConverter.PARENT_CACHE_DIR_URL_CONF, f"file://{os.path.dirname(out)}/converter")
    number = F.substring(work.columns[0], 2, 20).cast("long").alias("id")
    converter = make_spark_converter(read(spark, work).select(number, *work.columns[1:]), 8 << 20)
    num_tasks = len(converter.file_urls)
    shards = spark.range(0, num_tasks, 1, num_tasks)
    write(shards.mapInArrow(partial(by_loader, work, converter), SCORES), out)
    converter.delete()


def plain_torch(pool: ProcessPoolExecutor, work: Work, out: str) -> None:
    os.makedirs(out, exist_ok=True)
    list(pool.map(partial(_score_file, work, out), work.files))


def _score_file(work: Work, out: str, file: str) -> None:
    with pq.ParquetFile(file, memory_map=True) as source:
        batches = source.iter_batches(BATCH_ROWS, columns=list(work.columns), use_threads=False)
        schema = pa.schema([("id", pa.string()), ("score", pa.float32())])
        with pq.ParquetWriter(f"{out}/{os.path.basename(file)}", schema) as sink:
            for part in by_arrow(work, (batch.select(work.columns) for batch in batches)):
                sink.write_batch(part)


def alone(work: Work, num_rows: int, seconds: float) -> tuple[float, float]:
    """Rows a second, and a second of CPU, of the model on tensors in memory: the limit of any way to score."""
    model, trained = loaded(work)
    with pq.ParquetFile(work.files[0]) as source:
        batch = next(source.iter_batches(num_rows, columns=list(work.columns))).select(work.columns)
    arrays = [dense(batch.column(name), width) for name, width in zip(work.columns[1:], work.widths, strict=True)]
    size = trained.form.batch_size
    starts = range(0, batch.num_rows, size)
    inputs = [work.tensors([array[i : i + size] for array in arrays], trained) for i in starts]
    done, began, began_cpu = 0, time.perf_counter(), time.process_time()
    with torch.inference_mode():
        while time.perf_counter() - began < seconds:
            for part in inputs:
                work.recipe.scores(model(*part)).numpy()
            done += batch.num_rows
    return done / (time.perf_counter() - began), done / (time.process_time() - began_cpu)


def limit(pool: ProcessPoolExecutor, work: Work, num_rows: int, seconds: float) -> tuple[float, float]:
    """`alone` in two processes at once: rows a second of both, rows a second of CPU of one."""
    wall, cpu = zip(*(f.result() for f in [pool.submit(alone, work, num_rows, seconds) for _ in range(2)]), strict=True)
    return sum(wall), sum(cpu) / 2
