from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from medpipe import recipes
from medpipe.errors import MissingEnvironmentError
from medpipe.recipes import RISK_GRU, XRAY_CNN, Form, Trained
from medpipe.score import devices
from medpipe.score.settings import ScoreSettings
from medpipe.stream.batches import Sequences
from medpipe.stream.images import Images
from medpipe.stream.tokens import vocabulary_of

GPUS = {"spark.executor.resource.gpu.amount": "2"}
VOCABULARY = vocabulary_of(np.arange(20), np.arange(20) + 2, np.zeros(20), np.ones(20))
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


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


@pytest.mark.parametrize("recipe", [RISK_GRU, XRAY_CNN], ids=lambda recipe: recipe.name)
def test_a_form_that_was_chosen_on_a_core_is_not_a_gpus(recipe):
    chosen = Form("eager", 3)
    assert devices.form_on(devices.CPU, recipe, chosen) == chosen
    on_a_gpu = devices.form_on(torch.device("cuda", 0), recipe, chosen)
    assert on_a_gpu.name in recipe.forms and chosen.batch_size < on_a_gpu.batch_size <= recipe.batch_rows


def rows(recipe, count):
    """Histories of 1 to 600 events, or images of 28 x 28 and of all brightnesses, encoded."""
    random = np.random.default_rng(0)
    ids = np.array([f"p{i}" for i in range(count)], object)
    if recipe is XRAY_CNN:
        return Images(ids, (random.random((count, 1, 1)) * random.integers(0, 256, (count, 28, 28))).astype(np.uint8))
    lengths = random.integers(1, 601, count)
    days = np.concatenate([np.sort(random.integers(0, 9000, length))[::-1] for length in lengths]).astype(np.int32)
    amounts = np.where(random.random(len(days)) < 0.5, random.normal(size=len(days)), np.nan).astype(np.float32)
    tokens = random.integers(1, 22, len(days), np.int32)
    return Sequences(ids, np.concatenate([[0], np.cumsum(lengths)]), tokens, days, amounts)


def learned(recipe, encoded):
    """A model that has been taught a few times which histories are long, or which images light."""
    torch.manual_seed(0)
    known, encoded = VOCABULARY if recipe is RISK_GRU else None, encoded.take(np.arange(min(100, len(encoded.ids))))
    amounts = encoded.lengths if recipe is RISK_GRU else encoded.pixels.mean(axis=(1, 2))
    config = recipe.config(known, encoded)
    model = recipe.build(config)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(20):
        for batch, inputs in recipes.batches(recipe, config, encoded, len(encoded.ids)):
            labels = torch.from_numpy(amounts > np.median(amounts))[batch].float()
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(model(*inputs), labels).backward()
            optimiser.step()
    return Trained(recipe.name, config, model.state_dict(), known, recipe.form)


@on_gpu
@pytest.mark.parametrize("recipe", [RISK_GRU, XRAY_CNN], ids=lambda recipe: recipe.name)
def test_a_gpu_gives_the_scores_of_the_cpu_in_every_form_and_batch_size(recipe):
    encoded = rows(recipe, 1000)
    trained = learned(recipe, encoded)
    for name in recipe.forms:
        formed = replace(trained, form=Form(name, 1))
        expected = recipes.predict(recipe, trained.config, recipes.ready(recipe, formed), encoded, 100)
        assert expected.min() < 0.2 and expected.max() > 0.8
        model = recipes.ready(recipe, formed).to("cuda")
        for batch_size in (1000, 256, 7):
            found = devices.predict(recipe, trained.config, model, encoded, batch_size, torch.device("cuda", 0))
            np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)
            assert found[1] == "cuda"


@on_gpu
def test_what_torch_was_set_to_is_so_after_scoring_too():
    encoded, device = rows(XRAY_CNN, 3), torch.device("cuda", 0)
    model = recipes.ready(XRAY_CNN, trained := learned(XRAY_CNN, encoded)).to(device)
    before = torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    devices.predict(XRAY_CNN, trained.config, model, encoded, 2, device)
    assert (torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == before
    none, name = devices.predict(XRAY_CNN, trained.config, model, encoded.take(np.arange(0)), 2, device)
    assert none.shape == (0,) and name == "cuda"


@on_gpu
def test_memory_that_a_task_no_longer_needs_is_there_for_others():
    torch.empty(2**30, dtype=torch.uint8, device="cuda")
    kept = torch.cuda.memory_reserved()
    devices.release(torch.device("cuda", 0))
    assert torch.cuda.memory_reserved() <= kept - 2**30


@pytest.fixture
def room():
    """Limits this process to so many bytes of GPU memory beside what it holds."""
    _, total = torch.cuda.mem_get_info()

    def limit(num_bytes):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + num_bytes) / total)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@on_gpu
@pytest.mark.parametrize("recipe", [RISK_GRU, XRAY_CNN], ids=lambda recipe: recipe.name)
def test_a_gpu_that_has_too_little_memory_gives_the_same_scores_in_smaller_batches(recipe, room):
    encoded, device = rows(recipe, 3000), torch.device("cuda", 0)
    trained = learned(recipe, encoded)
    expected = recipes.predict(recipe, trained.config, recipes.ready(recipe, trained), encoded, 100)
    model = recipes.ready(recipe, trained).to(device)
    devices.predict(recipe, trained.config, model, encoded.take(np.arange(10)), 10, device)
    room(300 * 2**20 if recipe is RISK_GRU else 100 * 2**20)
    found, name = devices.predict(recipe, trained.config, model, encoded, 3000, device)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert name.startswith("cuda/") and 1 <= int(name.removeprefix("cuda/")) < 3000


@on_gpu
def test_batches_copied_ahead_arrive_whole_and_in_order_while_the_gpu_is_behind():
    random = torch.Generator().manual_seed(0)
    sent = [(np.arange(n), (torch.rand(n, 1000, generator=random), torch.full((n,), n))) for n in [300, 1, 200] * 20]
    sums = []
    for _, (values, counts) in devices._copied_ahead(iter(sent), torch.device("cuda", 0)):
        torch.cuda._sleep(20_000_000)  # some hundredths of a second; the copies come sooner than they are used
        sums.append((values.double().sum(), counts.sum()))
        del values, counts
    for (values, counts), (_, (sent_values, sent_counts)) in zip(sums, sent, strict=True):
        assert values.item() == pytest.approx(sent_values.double().sum().item(), rel=1e-12)
        assert counts.item() == sent_counts.sum().item()
