"""A model alone on a GPU and on one core, and where the time of one task that feeds the GPU goes; no Spark.

    PYTHONPATH=. python -m tests.bench.score_alone --out report.json

Everything is rows a second, or seconds for one file of `--rows` rows. Limits are measured: copies through pinned
memory, copies on the device, a float32 matrix product.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from medpipe import recipes
from medpipe.recipes import RISK_GRU, XRAY_CNN, Form, Recipe, Trained
from medpipe.score import devices
from medpipe.stream.batches import Encoded
from medpipe.stream.reader import read
from tests.bench import gpus
from tests.bench.histories import histories, images
from tests.bench.score_gpu import model

SIZES = (64, 256, 512, 1024, 2048, 8192)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)  # as in a task
    device = torch.device("cuda", 0) if torch.cuda.is_available() else devices.CPU
    told = {"machine": gpus.machine(), "limits": limits(device, args.repeats)}
    for recipe, make in ((RISK_GRU, histories), (XRAY_CNN, images)):
        trained, _ = model(recipe, 0)
        num_rows = SIZES[-1] if device.type == "cuda" else 64
        encoded = recipe.read(next(make(iter([gpus.ids(num_rows)]))), trained.vocabulary)
        few, sizes = encoded.take(np.arange(min(1024, num_rows))), (recipe.batch_sizes[0], recipe.form.batch_size)
        told[recipe.name] = {
            "device": alone(recipe, trained, encoded, device, SIZES, args.repeats),
            "one core": alone(recipe, trained, few, devices.CPU, sizes, 1),
            "tf32": tf32(recipe, trained, few, device),
            "task": task(recipe, trained, args.rows, make, device, args.repeats),
        }
        args.out.write_text(json.dumps(told, indent=1))
        print(recipe.name, json.dumps(told[recipe.name]), flush=True)
    print(json.dumps(told["machine"] | told["limits"]))


def limits(device: torch.device, repeats: int) -> dict:
    """GB/s and TFLOP/s of this machine."""
    size = 2**28 if device.type == "cuda" else 2**22
    host = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    there, also = (
        torch.empty(size, dtype=torch.uint8, device=device),
        torch.empty(size, dtype=torch.uint8, device=device),
    )
    side = 8192 if device.type == "cuda" else 256
    matrix = torch.rand(side, side, device=device)
    return {
        "to_device_gb_s": round(size / gpus.seconds_of(lambda: there.copy_(host), repeats) / 1e9, 1),
        "on_device_gb_s": round(2 * size / gpus.seconds_of(lambda: also.copy_(there), repeats) / 1e9, 1),
        "float32_tflop_s": round(2 * side**3 / gpus.seconds_of(lambda: matrix @ matrix, repeats) / 1e12, 1),
    }


def alone(
    recipe: Recipe, trained: Trained, encoded: Encoded, device: torch.device, sizes: tuple[int, ...], repeats: int
) -> dict:
    """form/batch size -> rows a second through the model, its inputs already on the device."""
    found = {}
    for name in recipe.forms:
        ready = recipes.ready(recipe, replace(trained, form=Form(name, 1))).to(device)
        for size in sizes:
            batches = [
                tuple(part.to(device) for part in inputs)
                for _, inputs in recipes.batches(recipe, trained.config, encoded, size)
            ]
            found[f"{name}/{size}"] = round(
                len(encoded.ids) / gpus.seconds_of(partial(forward, ready, batches), repeats)
            )
    return found


@torch.inference_mode()
def forward(ready: nn.Module, batches: list[tuple[torch.Tensor, ...]]) -> None:
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for inputs in batches:
            ready(*inputs)


@torch.inference_mode()
def tf32(recipe: Recipe, trained: Trained, encoded: Encoded, device: torch.device) -> dict:
    """What torch's default, shorter float32 products in cuDNN, would change in the scores."""
    expected = recipes.predict(recipe, trained.config, recipes.ready(recipe, trained), encoded, 256)
    ready, found = recipes.ready(recipe, trained).to(device), {}
    for is_allowed in (True, False):
        scores = np.empty(len(encoded.ids), np.float32)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=is_allowed):
            for rows, inputs in recipes.batches(recipe, trained.config, encoded, 256):
                scores[rows] = recipe.scores(ready(*(part.to(device) for part in inputs))).cpu().numpy()
        found["allowed" if is_allowed else "not allowed"] = float(np.abs(scores - expected).max())
    return found


def task(recipe: Recipe, trained: Trained, num_rows: int, make, device: torch.device, repeats: int) -> dict:
    """Seconds of one file: read; read and encode; and batches; and the model on the device, by form and batch size."""
    with tempfile.TemporaryDirectory() as folder:
        path, found = f"{folder}/rows.parquet", {"rows": num_rows}
        pq.write_table(pa.Table.from_batches(make(iter([gpus.ids(num_rows)]))), path)

        def batches() -> Iterator[pa.RecordBatch]:
            return read(path, [0], recipe.columns, recipe.batch_rows)

        def encoded() -> Iterator[Encoded]:
            return (recipe.read(batch, trained.vocabulary) for batch in batches())

        found["read"] = seconds(lambda: list(batches()), repeats)
        found["and encode"] = seconds(lambda: [None for _ in encoded()], repeats)
        for form in (recipe.form, recipe.gpu_form):
            found[f"and batches of {form.batch_size}"] = seconds(
                partial(made, recipe, trained, encoded, form.batch_size), repeats
            )
            ready = recipes.ready(recipe, replace(trained, form=form)).to(device)
            whole = partial(predicted, recipe, trained, ready, encoded, form.batch_size, device)
            found[f"and scores {form.name}/{form.batch_size}"] = seconds(whole, repeats)
            if device.type == "cuda":
                found[f"gpu busy {form.name}/{form.batch_size}"] = busy(whole)
    return found


def made(recipe: Recipe, trained: Trained, parts, size: int) -> None:
    for part in parts():
        for _ in recipes.batches(recipe, trained.config, part, size):
            pass


def predicted(recipe: Recipe, trained: Trained, ready: nn.Module, parts, size: int, device: torch.device) -> None:
    for part in parts():
        devices.predict(recipe, trained.config, ready, part, size, device)


def seconds(call, repeats: int) -> float:
    return round(gpus.seconds_of(call, repeats), 3)


def busy(call) -> float:
    """Seconds in which kernels or copies ran on the GPU, overlapping ones counted once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    events = profile.profiler.kineto_results.events()
    spans = sorted((e.start_ns(), e.end_ns()) for e in events if e.device_type() == torch.autograd.DeviceType.CUDA)
    total, end = 0, 0
    for start, stop in spans:
        total += max(stop - max(start, end), 0)
        end = max(end, stop)
    return round(total / 1e9, 3)


if __name__ == "__main__":
    main()
