import dataclasses
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from medpipe import checkpoints
from medpipe.errors import MissingEnvironmentError
from medpipe.recipes import RISK_GRU, Trained, ready
from medpipe.stream.tokens import vocabulary_of

VOCABULARY = vocabulary_of([30, -2], [2, 3], [0.5, 1.5], [1, 2])


@pytest.fixture
def trained():
    torch.manual_seed(0)
    config = RISK_GRU.config(VOCABULARY, None)
    return Trained("risk_gru", config, RISK_GRU.build(config).state_dict(), VOCABULARY, RISK_GRU.form)


def save(store, trained):
    return checkpoints.save(str(store), trained, {"seed": 1}, {"tune_log_loss": 0.3}, {"gold.sequence": 7})


@pytest.mark.parametrize("store", ["{}/models", "memory://models"])
def test_a_model_comes_back_as_it_was_from_any_store(tmp_path, trained, store):
    store = store.format(tmp_path)
    saved = save(store, trained)
    loaded = checkpoints.load(f"{store}/{saved.folder}", saved.sha256)
    assert loaded.recipe == "risk_gru" and loaded.config == trained.config
    RISK_GRU.build(loaded.config).load_state_dict(loaded.weights)
    assert all(torch.equal(loaded.weights[name], trained.weights[name]) for name in trained.weights)
    for name in checkpoints.VOCABULARY:
        np.testing.assert_array_equal(getattr(loaded.vocabulary, name), getattr(VOCABULARY, name))
    assert checkpoints.describe(f"{store}/{saved.folder}") == saved


def test_the_card_says_what_the_model_is(tmp_path, trained):
    saved = save(tmp_path, trained)
    assert saved.folder == f"risk_gru/{saved.sha256}"
    assert saved.config == {"model": trained.config, "train": {"seed": 1}}
    assert (saved.metrics, saved.data) == ({"tune_log_loss": 0.3}, {"gold.sequence": 7})


def test_the_same_model_has_the_same_name_and_another_shape_has_not(tmp_path, trained):
    one, again = save(tmp_path / "a", trained), save(tmp_path / "b", trained)
    cut = Trained(trained.recipe, trained.config | {"max_events": 9}, trained.weights, VOCABULARY, RISK_GRU.form)
    assert one.sha256 == again.sha256 != save(tmp_path, cut).sha256


def test_changed_weights_are_refused(tmp_path, trained):
    saved = save(tmp_path, trained)
    path = tmp_path / saved.folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(MissingEnvironmentError, match=f"WEIGHTS_CHANGED.*registered is {saved.sha256}"):
        checkpoints.load(str(tmp_path / saved.folder), saved.sha256)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(MissingEnvironmentError, match="NO_CHECKPOINT.*gone has no weights.safetensors"):
        checkpoints.load(str(tmp_path / "gone"), "0" * 64)


@pytest.mark.parametrize("content", [b"", b"not tensors at all"])
def test_a_file_that_is_no_checkpoint_is_refused_though_its_name_fits(tmp_path, content):
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(MissingEnvironmentError, match="WEIGHTS_UNREADABLE"):
        checkpoints.load(str(tmp_path), hashlib.sha256(content).hexdigest())


class Payload:
    """What a pickle would run: it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_a_pickle_in_place_of_the_weights_is_refused_and_does_not_run(tmp_path, write):
    with (tmp_path / "weights.safetensors").open("wb") as file:
        write(Payload(tmp_path / "ran"), file)
    digest = hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    with pytest.raises(MissingEnvironmentError, match="WEIGHTS_UNREADABLE"):
        checkpoints.load(str(tmp_path), digest)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_shape_or_name_are_refused(tmp_path, trained):
    name, tensor = next(iter(trained.weights.items()))
    others = {name: tensor[:-1]}, {"another": tensor.clone()}
    for weights in (trained.weights | others[0], trained.weights | others[1]):
        saved = save(tmp_path, dataclasses.replace(trained, weights=weights))
        loaded = checkpoints.load(str(tmp_path / saved.folder), saved.sha256)
        with pytest.raises(MissingEnvironmentError, match="WRONG_SHAPE: the weights of risk_gru"):
            ready(RISK_GRU, loaded)


def test_weights_that_are_no_numbers_are_refused_and_named(tmp_path, trained):
    name, tensor = next(iter(trained.weights.items()))
    saved = save(tmp_path, dataclasses.replace(trained, weights=trained.weights | {name: tensor * float("nan")}))
    with pytest.raises(
        MissingEnvironmentError, match=f"WEIGHTS_NOT_FINITE: .* no finite numbers in {name};"
    ) as refused:
        checkpoints.load(str(tmp_path / saved.folder), saved.sha256)
    assert refused.value.exit_code == 6
