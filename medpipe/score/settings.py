"""How a population is scored. Apart from the scorer, so that reading settings needs no torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ScoreSettings:
    """How to score.

    Attributes:
        device: auto: the GPU that Spark gives the task, if torch can use it, else the CPU; cpu; gpu: nothing else.
        gpus_per_task: share of a GPU a task asks Spark for, where the executors have any.
        shard_rows: rows a task should read at most.
        tasks_per_part: shards that are stored together; a killed run loses at most one part. Choose a multiple of the
            cluster's cores.
        max_error_ratio: patients without a score, of all, beyond which nothing is published.
        num_molecules: that a generator makes. seed: of its noise; the same seed gives the same molecules.
    """

    device: Literal["auto", "cpu", "gpu"] = "auto"
    gpus_per_task: float = 1.0
    shard_rows: int = 65_536
    tasks_per_part: int = 64
    max_error_ratio: float = 0.01
    num_molecules: int = 30_000
    seed: int = 1
