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
        faded = fading_sums(torch.relu(self.fade(inputs)), days_before, lengths, self.rates)  # (B, H * M)
        return self.head(self.drop(torch.cat([summary(states, lengths), faded], dim=1))).squeeze(1)


class FoldedSequenceClassifier(nn.Module):
    """The logits of a trained SequenceClassifier, sooner: only for scoring.

    What a layer makes of [embedding; side inputs] is a sum of two parts, and the part of the embedding is the same
    for each event of a concept: it is computed once, for all concepts, and then looked up. The states are summed up
    as they come, so no (B, T, H) leaves the cache. Exact but for rounding.
    """

    def __init__(self, trained: SequenceClassifier) -> None:
        super().__init__()
        rnn, fade, dim, size = trained.rnn, trained.fade, trained.embed.embedding_dim, trained.rnn.hidden_size
        with torch.no_grad():
            bias = rnn.bias_ih_l0.clone()
            # The new gate's recurrent bias is scaled by the reset gate and stays apart.
            bias[: 2 * size] += rnn.bias_hh_l0[: 2 * size]
            buffers = {
                "gates": trained.embed.weight @ rnn.weight_ih_l0[:, :dim].T + bias,  # (tokens, 3H)
                "gates_side": rnn.weight_ih_l0[:, dim:].T.contiguous(),  # (4, 3H)
                "fade": trained.embed.weight @ fade.weight[:, :dim].T + fade.bias,  # (tokens, H)
                "fade_side": fade.weight[:, dim:].T.contiguous(),  # (4, H)
                "recurrent": rnn.weight_hh_l0.T.contiguous(),  # (H, 3H): reset, update, new
                "new_bias": rnn.bias_hh_l0[2 * size :].clone(),  # (H,)
                "rates": trained.rates,
            }
        for name, value in buffers.items():
            self.register_buffer(name, value)
        self.head = trained.head

    def forward(self, tokens: Tensor, days_before: Tensor, amounts: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B,); arguments as SequenceClassifier's."""
        side = side_inputs(days_before, amounts)  # (B, T, 4)
        fade = torch.addmm(self.fade[tokens.flatten()], side.flatten(0, 1), self.fade_side)
        faded = fading_sums(torch.relu(fade).unflatten(0, tokens.shape), days_before, lengths, self.rates)
        states = self._summary(tokens.T.contiguous(), side.transpose(0, 1).contiguous(), lengths)
        return self.head(torch.cat([states, faded], dim=1)).squeeze(1)

    def _summary(self, tokens: Tensor, side: Tensor, lengths: Tensor) -> Tensor:
        """`summary` of the states by torch.nn.GRU's equations, from tokens (T, B) and side inputs (T, B, 4)."""
        size, shortest = len(self.new_bias), int(lengths.min())
        state = last = total = side.new_zeros(len(lengths), size)
        top = total - 1
        for place in range(len(tokens)):
            now = torch.addmm(self.gates[tokens[place]], side[place], self.gates_side)  # (B, 3H)
            before = state @ self.recurrent
            reset, update = torch.sigmoid(now[:, : 2 * size] + before[:, : 2 * size]).split(size, dim=1)
            new = torch.tanh(torch.addcmul(now[:, 2 * size :], reset, before[:, 2 * size :] + self.new_bias))
            state = torch.lerp(new, state, update)
            if place < shortest:
                last, total, top = state, total + state, torch.maximum(top, state)
            else:
                goes_on = (lengths > place)[:, None]
                last = torch.where(goes_on, state, last)
                total = torch.where(goes_on, total + state, total)
                top = torch.where(goes_on, torch.maximum(top, state), top)
        return torch.cat([last, total / lengths[:, None], top], dim=1)


def summary(states: Tensor, lengths: Tensor) -> Tensor:
    """(B, 3H): each patient's last state, and the mean and maximum over the events, of states (B, T, H)."""
    is_event = _is_event(states, lengths)
    patients = torch.arange(len(lengths), device=lengths.device)
    # Column -1 is padding for all but the longest history, so take each patient's own last event.
    last = states[patients, lengths - 1]
    mean = (states * is_event).sum(dim=1) / lengths[:, None]
    # A state lies in (-1, 1), so -1 never wins over an event.
    top = torch.where(is_event, states, -1.0).amax(dim=1)
    return torch.cat([last, mean, top], dim=1)


def fading_sums(inputs: Tensor, days_before: Tensor, lengths: Tensor, rates: Tensor) -> Tensor:
    """(B, H * M): log sums of inputs (B, T, H) >= 0 over the events, each fading at M rates per day."""
    weights = torch.exp(-days_before[:, :, None] * rates) * _is_event(inputs, lengths)  # (B, T, M)
    return torch.log1p(inputs.transpose(1, 2) @ weights).flatten(1)


def _is_event(events: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, 1): False in the padding of events (B, T, any)."""
    return (torch.arange(events.shape[1], device=events.device) < lengths[:, None])[:, :, None]


def side_inputs(days_before: Tensor, amounts: Tensor) -> Tensor:
    """(B, T, 4): log days before the index, log days since the event before (0 at first), value, value is there."""
    gap = torch.zeros_like(days_before)
    gap[:, 1:] = (days_before[:, :-1] - days_before[:, 1:]).clamp(min=0)
    is_there = ~torch.isnan(amounts)
    value = torch.where(is_there, amounts, 0.0)
    return torch.stack(
        [torch.log1p(days_before) / LOG_DAYS_SCALE, torch.log1p(gap) / LOG_DAYS_SCALE, value, is_there.float()], dim=2
    )
