"""Generator and discriminator of molecules as sequences of tokens; the generator makes them out of noise alone."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medpipe.molecules.smiles import END, PADDING, START


@dataclass(frozen=True)
class GanConfig:
    """Shape of both models.

    Attributes:
        tokens: text of each token, as smiles.Tokens.texts.
        max_tokens: of a molecule, its end counted.
        embedding_dim, hidden_dim: of the generator. num_channels: of the discriminator.
        dropout: of the discriminator, while training.
    """

    tokens: tuple[str, ...]
    max_tokens: int = 32
    embedding_dim: int = 128
    hidden_dim: int = 512
    num_channels: int = 128
    dropout: float = 0.25


class MoleculeGan(nn.Module):
    """Both models. B molecules, T = max_tokens, V tokens, H hidden."""

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)

    def forward(self, noise: Tensor) -> Tensor:
        """float32 (B, 1 + T) from noise (B, T) in [0, 1): the discriminator's logit, then the molecule's tokens."""
        tokens = self.generator.sample(noise)
        return torch.cat([self.discriminator(tokens)[:, None], tokens.float()], dim=1)


class Generator(nn.Module):
    """LSTM that gives the probability of each next token."""

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(config.tokens), config.embedding_dim)
        self.rnn = nn.LSTM(config.embedding_dim, config.hidden_dim, batch_first=True)
        self.head = nn.Linear(config.hidden_dim, len(config.tokens))
        for gate in self.rnn.weight_hh_l0.chunk(4):
            nn.init.orthogonal_(gate)

    def log_probability(self, tokens: Tensor) -> Tensor:
        """(B,): of each whole molecule, from tokens int64 (B, T) that end with END and are padded."""
        before = torch.cat([torch.full_like(tokens[:, :1], START), tokens[:, :-1]], dim=1)
        states, _ = self.rnn(self.embed(before))  # (B, T, H)
        logits = self.head(states)  # (B, T, V)
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), tokens.flatten(), ignore_index=PADDING, reduction="none"
        )
        return -loss.view_as(tokens).sum(dim=1)

    def sample(self, noise: Tensor) -> Tensor:
        """Tokens int64 (B, T): the inverse of the cumulative distribution at noise (B, T); padding after END.

        A molecule depends on its own noise alone, but for the last bits that the size of the batch changes.
        """
        num_molecules, num_steps = noise.shape
        tokens = torch.zeros(num_molecules, num_steps, dtype=torch.int64, device=noise.device)
        unfinished = torch.arange(num_molecules, device=noise.device)
        last, state = torch.full_like(unfinished, START), None
        for step in range(num_steps):
            states, state = self.rnn(self.embed(last[:, None]), state)
            logits = self.head(states[:, 0])  # (B', V)
            logits[:, : START + 1] = -torch.inf  # nothing but tokens of a molecule and its end
            cumulative = logits.softmax(dim=1).cumsum(dim=1)
            drawn = noise[unfinished, step, None] * cumulative[:, -1:]
            last = (cumulative <= drawn).sum(dim=1).clamp(max=logits.shape[1] - 1)
            tokens[unfinished, step] = last
            goes_on = last != END
            if not goes_on.any():
                break
            unfinished, last = unfinished[goes_on], last[goes_on]
            state = tuple(part[:, goes_on] for part in state)
        return tokens


class Discriminator(nn.Module):
    """CNN over tokens: is a molecule one of the training set's, or generated?"""

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        width = config.num_channels
        self.embed = nn.Embedding(len(config.tokens), width, padding_idx=PADDING)
        self.first = nn.Conv1d(width, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, padding=1)
        self.drop = nn.Dropout(config.dropout)
        self.head = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B,) that they are real, from tokens int64 (B, T), 0 = padding."""
        is_token = (tokens != PADDING)[:, None]  # (B, 1, T)
        found = self.embed(tokens).transpose(1, 2)  # (B, C, T)
        found = self.first(found).relu() * is_token
        found = self.second(found).relu() * is_token
        summary = torch.cat([found.sum(dim=2) / is_token.sum(dim=2), found.amax(dim=2)], dim=1)  # (B, 2C)
        return self.head(self.drop(summary)).squeeze(1)
