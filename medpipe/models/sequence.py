"""GRU over a patient's events: what happened, how long ago, after what pause, and with what value."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class SequenceConfig:
    """Shape of the model.

    Attributes:
        num_tokens: concepts of the vocabulary + 2 (0 padding, 1 unknown).
        embedding_dim: D. hidden_dim: H.
        dropout: share of the inputs and of the summary set to 0 while training.
        max_events: longer histories are cut to this (stream.batches.pad); bounds memory.
    """

    num_tokens: int
    embedding_dim: int = 32
    hidden_dim: int = 64
    dropout: float = 0.1
    max_events: int = 512


# Time, pause, value, value is there.
NUM_SIDE_INPUTS = 4
# Days after which an event counts 1/e in the recency sums; infinity: a plain count.
MEMORY_DAYS = (30.0, 120.0, 480.0, float("inf"))
# log1p of a life in days is about 10: divided by this the inputs have the size of the embedding's.
LOG_DAYS_SCALE = 5.0


class SequenceClassifier(nn.Module):
    """One logit per patient. B patients, T longest history, D embedding, H hidden, M memories.

    The summary is the state after the last event, the mean and the maximum of all states, and beside them sums over
    the events that fade at fixed rates: the states hold order, the sums spare them to learn from few patients how
    long an event matters.
    """

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.num_tokens, config.embedding_dim, padding_idx=0)
        self.drop = nn.Dropout(config.dropout)
        self.rnn = nn.GRU(config.embedding_dim + NUM_SIDE_INPUTS, config.hidden_dim, batch_first=True)
        self.fade = nn.Linear(config.embedding_dim + NUM_SIDE_INPUTS, config.hidden_dim)
        self.register_buffer("rates", 1 / torch.tensor(MEMORY_DAYS), persistent=False)  # (M,)
        self.head = nn.Linear((3 + len(MEMORY_DAYS)) * config.hidden_dim, 1)

    def forward(self, tokens: Tensor, days_before: Tensor, amounts: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B,).

        Args:
            tokens: int64 (B, T), 0 = padding on the right.
            days_before: float32 (B, T), days from the event to the index, not rising along T.
            amounts: float32 (B, T), z-scores, NaN where there is none.
            lengths: int64 (B,), each >= 1.
        """
        inputs = self.drop(torch.cat([self.embed(tokens), side_inputs(days_before, amounts)], dim=2))  # (B, T, D + 4)
        states, _ = self.rnn(inputs)  # (B, T, H)
        is_event = (torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None])[:, :, None]  # (B, T, 1)
        patients = torch.arange(len(lengths), device=lengths.device)
        # Column -1 is padding for all but the longest history, so take each patient's own last event.
        last = states[patients, lengths - 1]  # (B, H)
        mean = (states * is_event).sum(dim=1) / lengths[:, None]  # (B, H)
        # A state lies in (-1, 1), so -1 never wins over an event.
        top = torch.where(is_event, states, -1.0).amax(dim=1)  # (B, H)
        weights = torch.exp(-days_before[:, :, None] * self.rates) * is_event  # (B, T, M)
        sums = torch.log1p(torch.relu(self.fade(inputs)).transpose(1, 2) @ weights).flatten(1)  # (B, H * M)
        return self.head(self.drop(torch.cat([last, mean, top, sums], dim=1))).squeeze(1)


def side_inputs(days_before: Tensor, amounts: Tensor) -> Tensor:
    """(B, T, 4): log days before the index, log days since the event before (0 at first), value, value is there."""
    gap = torch.zeros_like(days_before)
    gap[:, 1:] = (days_before[:, :-1] - days_before[:, 1:]).clamp(min=0)
    is_there = ~torch.isnan(amounts)
    value = torch.where(is_there, amounts, 0.0)
    return torch.stack(
        [torch.log1p(days_before) / LOG_DAYS_SCALE, torch.log1p(gap) / LOG_DAYS_SCALE, value, is_there.float()], dim=2
    )
