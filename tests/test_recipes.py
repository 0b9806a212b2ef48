import pickle
from dataclasses import asdict

import numpy as np
import pytest
import torch

from medpipe import recipes
from medpipe.errors import UsageError
from medpipe.models.sequence import SequenceConfig
from medpipe.stream.batches import Sequences


@pytest.mark.parametrize("name", ["risk_gru", "xray_cnn", "molecule_gan"])
def test_a_recipe_is_found_by_name_and_travels_to_workers(name):
    recipe = recipes.named(name)
    assert recipe.name == name
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_an_unknown_recipe_is_refused_with_the_known_names():
    with pytest.raises(
        UsageError, match="UNKNOWN_RECIPE: no recipe 'risk'; expected one of molecule_gan, risk_gru, xray_cnn"
    ):
        recipes.named("risk")


def test_a_score_does_not_depend_on_who_is_scored_beside_it():
    random = np.random.default_rng(0)
    lengths = random.integers(1, 60, 700)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    amounts = np.where(random.random(offsets[-1]) < 0.3, random.normal(size=offsets[-1]), np.nan).astype(np.float32)
    days = np.concatenate([np.sort(random.integers(0, 9000, length))[::-1] for length in lengths]).astype(np.int32)
    sequences = Sequences(
        np.array([f"p{i}" for i in range(700)], object),
        offsets,
        random.integers(1, 30, offsets[-1]).astype(np.int32),
        days,
        amounts,
    )
    torch.manual_seed(0)
    config = asdict(SequenceConfig(num_tokens=30))
    model = recipes.RISK_GRU.build(config)
    together = recipes.predict(recipes.RISK_GRU, config, model, sequences, 256)
    for rows in (np.arange(350, 700), random.permutation(700), np.array([13])):
        alone = recipes.predict(recipes.RISK_GRU, config, model, sequences.take(rows), 64)
        assert np.abs(alone - together[rows]).max() < 1e-6
