import dataclasses
from dataclasses import asdict

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medpipe.errors import UsageError
from medpipe.models.sequence import SequenceConfig
from medpipe.recipes import RISK_GRU, predict
from medpipe.stream.batches import Sequences
from medpipe.train import loop
from medpipe.train.examples import Examples, hash_order
from medpipe.train.loop import fit
from medpipe.train.settings import TrainSettings

SMALL = TrainSettings(batch_size=64, max_epochs=3, learning_rate=5e-3)


def order_matters(count, seed=0):
    """Patients with the same concepts 3 and 4; the outcome follows when 3 comes before 4."""
    random = np.random.default_rng(seed)
    lengths = random.integers(4, 9, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens, is_first = np.full(offsets[-1], 2, np.int32), random.random(count) < 0.5
    for patient, (start, length) in enumerate(zip(offsets, lengths, strict=False)):
        low, high = np.sort(random.choice(np.arange(1, length), 2, replace=False)) + start
        tokens[low], tokens[high] = (3, 4) if is_first[patient] else (4, 3)
    days = np.concatenate([np.arange(length, 0, -1) * 10 for length in lengths]).astype(np.int32)
    labels = (random.random(count) < np.where(is_first, 0.8, 0.1)).astype(np.float32)
    ids = np.array([f"p{i}" for i in range(count)], object)
    sequences = Sequences(ids, offsets, tokens, days, np.full(len(tokens), np.nan, np.float32))
    splits = np.array((["train"] * 3 + ["tune"]) * (count // 4), object)
    order = hash_order(ids, "examples")
    return Examples(sequences.take(order), labels[order], splits[order])


CONFIG = asdict(SequenceConfig(num_tokens=5, hidden_dim=8, embedding_dim=4))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns_what_counts_cannot_tell(tmp_path):
    examples = order_matters(1200)
    settings = dataclasses.replace(SMALL, max_epochs=12, learning_rate=2e-2)
    fitted = fit(RISK_GRU, CONFIG, examples, settings, tmp_path)
    model = RISK_GRU.build(CONFIG)
    model.load_state_dict(fitted.weights)
    rows = examples.rows("tune")
    scores = predict(RISK_GRU, CONFIG, model, examples.encoded.take(rows), 256)
    assert roc_auc_score(examples.labels[rows], scores) > 0.78  # the best possible is 0.85
    assert fitted.metrics["tune_log_loss"] == min(fitted.history)


def test_the_same_training_gives_the_same_bits(tmp_path):
    examples = order_matters(400)
    one, other = (fit(RISK_GRU, CONFIG, examples, SMALL, tmp_path / name) for name in ("one", "other"))
    assert same(one.weights, other.weights) and one.history == other.history


def test_stopped_after_any_epoch_and_resumed_it_ends_at_the_same_bits(tmp_path, monkeypatch):
    examples = order_matters(400)
    whole = fit(RISK_GRU, CONFIG, examples, SMALL, tmp_path / "whole")
    epochs = []
    train_epoch = loop._train_epoch

    def stop_after_one(*given):
        if epochs and epochs[-1] == "stop":
            epochs.append("resumed")
            raise KeyboardInterrupt
        train_epoch(*given)
        epochs.append("stop")

    monkeypatch.setattr(loop, "_train_epoch", stop_after_one)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(RISK_GRU, CONFIG, examples, SMALL, tmp_path / "stopped")
    resumed = fit(RISK_GRU, CONFIG, examples, SMALL, tmp_path / "stopped")
    assert epochs.count("stop") == SMALL.max_epochs
    assert same(whole.weights, resumed.weights) and whole.history == resumed.history


def test_a_finished_training_is_not_run_again(tmp_path, monkeypatch):
    examples = order_matters(400)
    first = fit(RISK_GRU, CONFIG, examples, SMALL, tmp_path)
    monkeypatch.setattr(loop, "_train_epoch", lambda *given: pytest.fail("trained again"))
    assert same(first.weights, fit(RISK_GRU, CONFIG, examples, SMALL, tmp_path).weights)


def test_training_stops_when_the_tune_loss_no_longer_falls(tmp_path):
    examples = order_matters(400)
    noise = dataclasses.replace(examples, labels=np.random.default_rng(0).permutation(examples.labels))
    settings = dataclasses.replace(SMALL, max_epochs=50, patience=2, learning_rate=5e-2)
    fitted = fit(RISK_GRU, CONFIG, noise, settings, tmp_path)
    assert len(fitted.history) < 50
    assert len(fitted.history) - 1 - int(np.argmin(fitted.history)) == 2
    assert fitted.metrics["epoch"] == len(fitted.history) - 2


@pytest.mark.parametrize("change", ["settings", "patients"])
def test_the_state_of_another_training_is_refused(tmp_path, change):
    fit(RISK_GRU, CONFIG, order_matters(400), dataclasses.replace(SMALL, max_epochs=1), tmp_path)
    settings = SMALL if change == "settings" else dataclasses.replace(SMALL, max_epochs=1)
    with pytest.raises(UsageError, match="OTHER_TRAINING.*state.safetensors"):
        fit(RISK_GRU, CONFIG, order_matters(400, seed=0 if change == "settings" else 1), settings, tmp_path)


def test_torch_is_left_as_it_was(tmp_path):
    torch.manual_seed(5)
    expected, threads = torch.get_rng_state(), torch.get_num_threads()
    fit(RISK_GRU, CONFIG, order_matters(100), dataclasses.replace(SMALL, max_epochs=1), tmp_path)
    assert torch.equal(torch.get_rng_state(), expected)
    assert torch.get_num_threads() == threads and not torch.are_deterministic_algorithms_enabled()
