"""The device a task scores on: the one Spark gave it. Batches are copied to a GPU while it works on the one before."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from pyspark import TaskContext
from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from torch import Tensor, nn

from medpipe import recipes
from medpipe.errors import MissingEnvironmentError
from medpipe.recipes import Form, Recipe
from medpipe.score.settings import ScoreSettings
from medpipe.stream.batches import Encoded

CPU = torch.device("cpu")
AMOUNT = "spark.executor.resource.gpu.amount"


def profile(get_conf: Callable[[str, str], str], settings: ScoreSettings) -> ResourceProfile | None:
    """What a scoring task asks Spark for beside its core; None where executors have no GPU or none is wanted.

    Only the scoring stage holds GPUs: executors get theirs at submit, tasks of other stages ask for none.

    Args:
        get_conf: the session's settings, e.g. spark.conf.get.
    Raises:
        MissingEnvironmentError: NO_GPU where one is demanded and executors have none.
    """
    has_gpus = float(get_conf(AMOUNT, "0") or 0) > 0
    if settings.device == "gpu" and not has_gpus:
        raise MissingEnvironmentError(
            "NO_GPU", f"score.device is gpu and executors have none: submit with {AMOUNT}, or set score.device=auto"
        )
    if settings.device == "cpu" or not has_gpus:
        return None
    return (
        ResourceProfileBuilder().require(TaskResourceRequests().cpus(1).resource("gpu", settings.gpus_per_task)).build
    )


def of_task(wanted: str) -> torch.device:
    """The device of the running task.

    Args:
        wanted: as ScoreSettings.device.
    Raises:
        MissingEnvironmentError: NO_GPU where one is demanded and Spark gave none or torch cannot use it.
    """
    context = TaskContext.get()
    given = context.resources().get("gpu") if context else None
    if wanted == "cpu" or (wanted == "auto" and given is None):
        return CPU
    address = given.addresses[0] if given else None
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if address is not None and int(address) < seen:
        return torch.device("cuda", int(address))
    if wanted == "gpu":
        told = "no GPU" if address is None else f"GPU {address}"
        raise MissingEnvironmentError(
            "NO_GPU", f"Spark gave this task {told}, torch sees {seen}: mend the node's driver or set score.device=auto"
        )
    return CPU


def form_on(device: torch.device, recipe: Recipe, chosen: Form) -> Form:
    """How a model scores there: in the form chosen for it on a core, in the recipe's gpu_form on a GPU."""
    return chosen if device.type == "cpu" else recipe.gpu_form


def release(device: torch.device) -> None:
    """Gives back the memory that torch keeps for later: a worker that waits for a task would hold it against others."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def predict(
    recipe: Recipe, config: dict, model: nn.Module, encoded: Encoded, batch_size: int, device: torch.device
) -> tuple[np.ndarray, str]:
    """Scores float32 (N, ...) in the rows' order, and on what: cpu, cuda, or cuda/32 where memory had room for 32.

    Args:
        model: on the device.
    """
    if device.type == "cpu":
        return recipes.predict(recipe, config, model, encoded, batch_size), "cpu"
    found, smallest = [], batch_size
    with torch.inference_mode(), _exact():
        for rows, inputs in _copied_ahead(recipes.batches(recipe, config, encoded, batch_size), device):
            logits, size = in_memory(model, inputs)
            smallest = min(smallest, size) if size < len(rows) else smallest
            found.append((rows, recipe.scores(logits).float()))
    # Fetched once: who waits for each batch leaves the GPU idle while the CPU makes the next.
    if found:
        rows, parts = zip(*found, strict=True)
        found = [(np.concatenate(rows), torch.cat(parts).cpu().numpy())]
    return recipes.in_order(found), "cuda" if smallest == batch_size else f"cuda/{smallest}"


def _exact() -> AbstractContextManager[None]:
    """Whole float32 products in cuDNN: its default, TF32, moved scores by 1e-4 to 5e-3 on an H100."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(cudnn.enabled, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False)


def in_memory(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, int]:
    """Logits (B,), and the rows of the largest pass that fitted: a batch too large for the device is halved.

    Raises:
        torch.OutOfMemoryError: a single row does not fit.
    """
    num_rows = len(inputs[0])
    try:
        return model(*inputs), num_rows
    except torch.OutOfMemoryError:
        if num_rows == 1:
            raise
    # Here, not in the handler: its traceback would keep the failed pass in memory.
    torch.cuda.empty_cache()
    middle = (num_rows + 1) // 2
    halves = [in_memory(model, tuple(part[place] for part in inputs)) for place in (slice(middle), slice(middle, None))]
    return torch.cat([logits for logits, _ in halves]), min(size for _, size in halves)


def _copied_ahead(
    batches: Iterator[tuple[np.ndarray, tuple[Tensor, ...]]], device: torch.device
) -> Iterator[tuple[np.ndarray, tuple[Tensor, ...]]]:
    """The batches on the device; while one is used, the next is on its way through pinned memory."""
    stream = torch.cuda.Stream(device)

    def sent(rows: np.ndarray, inputs: tuple[Tensor, ...]):
        with torch.cuda.stream(stream):
            copies = tuple(part.pin_memory().to(device, non_blocking=True) for part in inputs)
            return rows, copies, stream.record_event()

    def arrived(rows: np.ndarray, copies: tuple[Tensor, ...], copied: torch.cuda.Event):
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for part in copies:
            # Else the memory could be given out again while the model still reads it.
            part.record_stream(current)
        return rows, copies

    waiting = None
    for batch in batches:
        following = sent(*batch)
        if waiting is not None:
            yield arrived(*waiting)
        waiting = following
    if waiting is not None:
        yield arrived(*waiting)
