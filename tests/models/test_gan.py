import numpy as np
import pytest
import torch

from medpipe.models.gan import GanConfig, MoleculeGan
from medpipe.molecules.smiles import END, PADDING, START

CONFIG = GanConfig(tokens=("p", "s", "e", "C", "N", "O"), max_tokens=9, embedding_dim=8, hidden_dim=16, num_channels=8)


@pytest.fixture
def gan():
    torch.manual_seed(0)
    return MoleculeGan(CONFIG).eval()


def drawn(gan, noise):
    with torch.inference_mode():
        return gan.generator.sample(noise)


def test_molecules_are_drawn_with_the_probabilities_the_generator_gives(gan):
    tokens = drawn(gan, torch.rand(40_000, 9, generator=torch.Generator().manual_seed(1)))
    found, counts = np.unique(tokens[:, :2].numpy(), axis=0, return_counts=True)
    for first, second in found[counts > 500]:
        before = torch.tensor([[START, first]])
        with torch.inference_mode():
            states, _ = gan.generator.rnn(gan.generator.embed(before))
            logits = gan.generator.head(states)[0].clone()
            logits[:, : START + 1] = -torch.inf
        probability = logits.softmax(dim=1)
        expected = float(probability[0, first] * (probability[1, second] if first != END else 1))
        share = counts[(found == [first, second]).all(axis=1)].item() / 40_000
        assert share == pytest.approx(expected, abs=4 * (expected / 40_000) ** 0.5)


def test_after_the_end_there_is_padding_and_nowhere_else(gan):
    tokens = drawn(gan, torch.rand(500, 9)).numpy()
    for row in tokens:
        end = list(row).index(END) if END in row else len(row)
        assert (row[:end] > END).all() and (row[end + 1 :] == PADDING).all()


def test_a_molecule_depends_on_its_own_noise_alone(gan):
    noise = torch.rand(64, 9)
    together = drawn(gan, noise)
    assert torch.equal(drawn(gan, noise[40:]), together[40:])
    assert torch.equal(drawn(gan, noise[:1]), together[:1])


def test_noise_at_the_ends_of_its_range_draws_a_token(gan):
    edge = torch.nextafter(torch.ones(2, 9), torch.zeros(2, 9))
    assert drawn(gan, torch.zeros(2, 9)).max() < len(CONFIG.tokens)
    assert drawn(gan, edge).max() < len(CONFIG.tokens)


def test_probability_of_a_molecule_is_the_product_of_its_tokens(gan):
    tokens = torch.tensor([[3, 4, END, 0, 0], [5, END, 0, 0, 0]])
    with torch.inference_mode():
        found = gan.generator.log_probability(tokens)
        states, _ = gan.generator.rnn(gan.generator.embed(torch.tensor([[START, 5]])))
        steps = gan.generator.head(states)[0].log_softmax(dim=1)
    assert found[1].item() == pytest.approx((steps[0, 5] + steps[1, END]).item(), abs=1e-5)
    with torch.inference_mode():
        longer = gan.generator.log_probability(torch.nn.functional.pad(tokens, (0, 4)))
    torch.testing.assert_close(longer, found)


def test_the_discriminator_does_not_see_padding(gan):
    tokens = torch.tensor([[3, 4, 5, END], [5, END, 0, 0]])
    with torch.inference_mode():
        found = gan.discriminator(tokens)
        padded = gan.discriminator(torch.nn.functional.pad(tokens, (0, 5)))
    torch.testing.assert_close(padded, found)


def test_both_together_give_a_logit_and_the_tokens(gan):
    noise = torch.rand(7, 9)
    with torch.inference_mode():
        found = gan(noise)
        assert found.shape == (7, 10)
        torch.testing.assert_close(found[:, 0], gan.discriminator(found[:, 1:].long()))
    assert torch.equal(found[:, 1:].long(), drawn(gan, noise))
