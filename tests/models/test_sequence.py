import numpy as np
import pytest
import torch

from medpipe.models.sequence import FoldedSequenceClassifier, SequenceClassifier, SequenceConfig, side_inputs

NAN = float("nan")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SequenceClassifier(SequenceConfig(num_tokens=12)).eval()


def history(*events):
    """One patient: (token, days before, amount) per event."""
    tokens, days, amounts = zip(*events, strict=True)
    return torch.tensor([tokens]), torch.tensor([days]).float(), torch.tensor([amounts]), torch.tensor([len(events)])


EVENTS = [(2, 9000, NAN), (5, 300, 0.5), (6, 200, NAN), (5, 10, 1.5)]


def test_what_stands_in_the_padding_changes_nothing(model):
    tokens, days, amounts, lengths = history(*EVENTS)
    longer = [torch.cat([part, part], dim=1) for part in (tokens, days, amounts)]
    with torch.inference_mode():
        assert model(tokens, days, amounts, lengths).item() == pytest.approx(model(*longer, lengths).item(), abs=1e-6)


@pytest.mark.parametrize(
    "changed",
    [
        [EVENTS[0], (6, 300, NAN), (5, 200, 0.5), EVENTS[3]],  # order
        [EVENTS[0], EVENTS[1], (6, 30, NAN), EVENTS[3]],  # timing
        [EVENTS[0], EVENTS[1], EVENTS[2], (5, 10, -1.5)],  # value
        [EVENTS[0], EVENTS[1], EVENTS[2], (5, 10, NAN)],  # value is there
    ],
)
def test_order_timing_and_values_reach_the_logit(model, changed):
    with torch.inference_mode():
        assert abs(model(*history(*EVENTS)).item() - model(*history(*changed)).item()) > 1e-4


def test_side_inputs_are_time_pause_value_and_its_presence():
    found = side_inputs(torch.tensor([[20.0, 6.0, 6.0]]), torch.tensor([[NAN, 0.0, -2.0]]))[0].numpy()
    expected = [
        [np.log1p(20) / 5, 0, 0, 0],
        [np.log1p(6) / 5, np.log1p(14) / 5, 0, 1],
        [np.log1p(6) / 5, 0, -2, 1],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_folded_it_is_the_same_function(model):
    random = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 60, (40,), generator=random)
    tokens = torch.randint(1, 12, (40, 60), generator=random) * (torch.arange(60) < lengths[:, None])
    days = torch.rand(40, 60, generator=random).mul(9000).sort(dim=1, descending=True).values
    amounts = torch.where(torch.rand(40, 60, generator=random) < 0.5, torch.randn(40, 60, generator=random), NAN)
    with torch.inference_mode():
        expected = model(tokens, days, amounts, lengths)
        folded = FoldedSequenceClassifier(model)(tokens, days, amounts, lengths)
    assert expected.std() > 0.01
    np.testing.assert_allclose(folded.numpy(), expected.numpy(), atol=2e-6)
