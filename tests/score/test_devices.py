import pytest
import torch
from torch import nn

from medpipe.errors import MissingEnvironmentError
from medpipe.score import devices
from medpipe.score.settings import ScoreSettings

GPUS = {"spark.executor.resource.gpu.amount": "2"}


class Crowded(nn.Module):
    """Has room for a few rows only, as a GPU that others use."""

    def __init__(self, room):
        super().__init__()
        self.room, self.passes = room, []

    def forward(self, inputs):
        self.passes.append(len(inputs))
        if len(inputs) > self.room:
            raise torch.OutOfMemoryError
        return inputs * 2


def test_a_batch_too_large_for_memory_is_halved_until_it_fits():
    model = Crowded(room=3)
    logits, num_rows = devices.in_memory(model, (torch.arange(10),))
    assert logits.tolist() == [2 * i for i in range(10)] and num_rows == 2
    assert model.passes[0] == 10


def test_a_row_that_does_not_fit_alone_fails():
    with pytest.raises(torch.OutOfMemoryError):
        devices.in_memory(Crowded(room=0), (torch.arange(4),))


def test_a_gpu_that_is_demanded_and_not_there_fails_before_anything_runs():
    with pytest.raises(MissingEnvironmentError, match="NO_GPU: score.device is gpu and executors have none"):
        devices.profile({}.get, ScoreSettings(device="gpu"))


def test_tasks_ask_for_a_gpu_only_where_executors_have_some_and_it_is_wanted(spark):
    assert devices.profile({}.get, ScoreSettings()) is None
    assert devices.profile(GPUS.get, ScoreSettings(device="cpu")) is None
    asked = devices.profile(GPUS.get, ScoreSettings(gpus_per_task=0.5)).taskResources
    assert asked["gpu"].amount == 0.5 and asked["cpus"].amount == 1


def test_outside_a_task_there_is_no_gpu_to_take():
    assert devices.of_task("auto") == devices.CPU == devices.of_task("cpu")
    with pytest.raises(MissingEnvironmentError, match="NO_GPU: Spark gave this task no GPU"):
        devices.of_task("gpu")
