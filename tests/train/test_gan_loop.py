from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from medpipe.errors import UsageError
from medpipe.models.gan import GanConfig, MoleculeGan
from medpipe.molecules.smiles import canonical, decode, learn
from medpipe.train.gan_loop import advantage, fit_gan
from medpipe.train.molecules import padded
from medpipe.train.settings import GanSettings

# Alcohols and amines of two to seven carbons, the long ones rare.
MOLECULES = [f"{'C' * length}{end}" for length in range(2, 8) for end in "ON" for _ in range(8 - length)] * 20
SETTINGS = GanSettings(
    num_epochs=12, batch_size=32, learning_rate=1e-2, num_merges=2, num_rounds=6, warm_up=2, round_size=64
)


def silent(step, figures):
    pass


@pytest.fixture(scope="module")
def molecules():
    tokens = learn(MOLECULES, SETTINGS.num_merges)
    rows = padded(tokens, MOLECULES)
    return rows, asdict(GanConfig(tokens.texts, rows.shape[1], embedding_dim=8, hidden_dim=24, num_channels=8))


@pytest.fixture(scope="module")
def fitted(molecules):
    rows, config = molecules
    return fit_gan(config, rows, SETTINGS, silent)


def made(fitted, config, num_molecules=2000):
    gan = MoleculeGan(GanConfig(**config)).eval()
    gan.load_state_dict(fitted.weights)
    with torch.inference_mode():
        tokens = gan.generator.sample(
            torch.rand(num_molecules, config["max_tokens"], generator=torch.Generator().manual_seed(3))
        )
    return decode(config["tokens"], tokens.numpy())


def test_what_it_makes_is_distributed_as_what_it_has_seen(fitted, molecules):
    found = made(fitted, molecules[1])
    assert np.mean([canonical(text) is not None for text in found]) > 0.95
    for text in ("CCO", "CCN", "CCCCO", "CCCCCCCN"):
        assert found.count(text) / len(found) == pytest.approx(MOLECULES.count(text) / len(MOLECULES), abs=0.04)


def test_the_same_molecules_and_settings_give_the_same_bits(fitted, molecules):
    rows, config = molecules
    torch.rand(5)  # what was drawn before must not matter
    again = fit_gan(config, rows, SETTINGS, silent)
    assert again.metrics == fitted.metrics
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in fitted.weights.items())
    other = fit_gan(config, rows, replace(SETTINGS, seed=2), silent)
    assert not torch.equal(other.weights["generator.head.weight"], fitted.weights["generator.head.weight"])


def test_the_rounds_change_both_models(fitted, molecules):
    rows, config = molecules
    before = fit_gan(config, rows, replace(SETTINGS, num_rounds=0), silent)
    for name in ("generator.head.weight", "discriminator.embed.weight"):
        assert not torch.equal(before.weights[name], fitted.weights[name])


def test_in_the_rounds_the_generator_comes_nearer_to_what_it_did_not_learn_by_likelihood(molecules):
    """Half trained it makes molecules that are none; told apart from real ones it makes fewer."""
    rows, config = molecules
    few = replace(SETTINGS, num_epochs=2, rate_against=5e-3, likelihood_weight=0.0)
    before, after = (fit_gan(config, rows, replace(few, num_rounds=rounds), silent) for rounds in (0, 40))
    shares = [np.mean([text in set(MOLECULES) for text in made(found, config)]) for found in (before, after)]
    assert shares[1] > shares[0] + 0.05


def test_a_molecule_weighs_by_its_odds_of_being_real_and_an_invalid_one_against_all():
    odds = torch.tensor([1.0, 3.0, 100.0, 100.0])
    weights = advantage(odds.log(), torch.tensor([True, True, True, False]), max_logit=float(np.log(8)))
    torch.testing.assert_close(weights, torch.tensor([1.0, 3.0, 8.0, 0.0]) / 3 - 1)


def test_the_generator_that_is_kept_is_the_average_of_its_steps(molecules):
    rows, config = molecules
    found = [
        fit_gan(config, rows, replace(SETTINGS, num_epochs=1, num_rounds=0, decay=decay), silent).weights
        for decay in (0.0, 0.9)
    ]
    last, average = (weights["generator.head.weight"] for weights in found)
    assert not torch.equal(last, average)


def test_a_generator_that_makes_nothing_valid_is_told():
    rings = ["c1ccccc1", "c1ccncc1"] * 16
    tokens = learn(rings, 0)
    config = asdict(GanConfig(tokens.texts, 12, embedding_dim=8, hidden_dim=24, num_channels=8))
    hasty = replace(SETTINGS, num_epochs=1, learning_rate=1e-9, round_size=8)
    with pytest.raises(UsageError, match="NO_VALID_MOLECULE: of 8 generated molecules none is valid; raise gan.num"):
        fit_gan(config, padded(tokens, rings), hasty, silent)


def test_the_discriminator_tells_a_bad_generators_molecules_from_real_ones(molecules):
    rows, config = molecules
    bad = replace(SETTINGS, num_epochs=1, learning_rate=1e-3, num_rounds=40, warm_up=40, discriminator_rate=5e-3)
    assert fit_gan(config, rows, bad, silent).metrics["discriminator_auroc"] > 0.75
