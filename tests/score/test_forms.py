import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from medpipe.recipes import RISK_GRU, Form, Trained, predict, ready
from medpipe.score import forms
from medpipe.stream.batches import Sequences
from medpipe.stream.tokens import vocabulary_of

VOCABULARY = vocabulary_of(np.arange(20), np.arange(20) + 2, np.zeros(20), np.ones(20))


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    config = RISK_GRU.config(VOCABULARY, None)
    return Trained("risk_gru", config, RISK_GRU.build(config).state_dict(), VOCABULARY, RISK_GRU.form)


@pytest.fixture(scope="module")
def sequences():
    random = np.random.default_rng(0)
    lengths = random.integers(1, 30, 300)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    days = np.concatenate([np.sort(random.integers(0, 9000, length))[::-1] for length in lengths]).astype(np.int32)
    tokens = random.integers(1, 22, offsets[-1]).astype(np.int32)
    ids = np.array([f"p{i}" for i in range(300)], object)
    return Sequences(ids, offsets, tokens, days, np.full(offsets[-1], np.nan, np.float32))


class Slow(nn.Module):
    """The same scores after a wait that the CPU feels."""

    def __init__(self, trained):
        super().__init__()
        self.trained = trained

    def forward(self, *inputs):
        started = time.process_time()
        while time.process_time() - started < 0.02:
            pass
        return self.trained(*inputs)


class Wrong(nn.Module):
    """No time at all, and other scores."""

    def __init__(self, trained):
        super().__init__()

    def forward(self, tokens, *others):
        return torch.zeros(len(tokens))


def test_the_fastest_form_that_gives_the_same_scores_is_chosen(trained, sequences):
    recipe = replace(
        RISK_GRU,
        forms={"eager": Slow, "same": lambda model: model, "wrong": Wrong},
        batch_sizes=(8, 256),
        form=Form("eager", 256),
    )
    assert forms.choose(recipe, trained, sequences) == Form("same", 256)


def test_without_a_gain_the_recipes_own_form_stays(trained, sequences):
    recipe = replace(RISK_GRU, forms={"eager": RISK_GRU.forms["eager"], "slow": Slow}, batch_sizes=(256,))
    assert forms.choose(recipe, trained, sequences) == RISK_GRU.form


@pytest.mark.parametrize("name", RISK_GRU.forms)
@pytest.mark.parametrize("batch_size", [1, 7, 512])
def test_no_form_or_batch_size_changes_a_score(trained, sequences, name, batch_size):
    form = Form(name, batch_size)
    expected = predict(RISK_GRU, trained.config, ready(RISK_GRU, trained), sequences, 256)
    model = ready(RISK_GRU, replace(trained, form=form))
    found = predict(RISK_GRU, trained.config, model, sequences, batch_size)
    assert np.abs(found - expected).max() < 1e-6
