"""What a benchmark wants to know of this machine's GPU: what it is, what it did meanwhile, and how it is when full."""

import contextlib
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch

EVERY_SECONDS = 0.1
# Run by an interpreter of its own: takes all of the memory but so many MiB, says so, and waits for its end.
HOG = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(max(free - int(sys.argv[1]) * 2**20, 0), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""


def ids(count: int) -> pa.RecordBatch:
    """0, 1 ... as a batch of spark.range."""
    return pa.RecordBatch.from_arrays([pa.array(np.arange(count))], names=["id"])


def machine() -> dict:
    """Names and versions."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    if torch.cuda.is_available():
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        found |= {"gpu": subprocess.run(query, capture_output=True, text=True).stdout.strip()}
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return found


@contextlib.contextmanager
def watched() -> Iterator[dict]:
    """Filled at the end: mean share of time in which the GPU ran something, most memory, most processes on it."""
    told, samples, is_over = {}, [], threading.Event()
    try:
        import pynvml

        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    except Exception:
        yield told
        return

    def look() -> None:
        while not is_over.wait(EVERY_SECONDS):
            busy = pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu
            used = pynvml.nvmlDeviceGetMemoryInfo(gpu).used // 2**20
            samples.append((busy, used, len(pynvml.nvmlDeviceGetComputeRunningProcesses(gpu))))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        is_over.set()
        thread.join()
        if samples:
            busy, used, processes = zip(*samples, strict=True)
            told |= {"gpu_busy_percent": round(sum(busy) / len(busy), 1), "gpu_busy_most": max(busy)}
            told |= {"gpu_mib": max(used), "gpu_processes": max(processes)}


@contextlib.contextmanager
def crowded(room_mib: int) -> Iterator[None]:
    """Another process holds the GPU's memory but so much."""
    if not torch.cuda.is_available():
        yield
        return
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOG, str(room_mib)], **pipes) as hog:
        try:
            assert hog.stdout.readline() == "held\n"
            yield
        finally:
            hog.stdin.close()


def seconds_of(call, repeats: int = 5) -> float:
    """Median seconds of a call, work on the GPU included, after one more that is not counted."""
    found = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return float(np.median(found[1:]))
