"""Two towers: a patient's treatments and features as one vector, each treatment as another; their product ranks.

B patients, M treatments, N features, R dimensions, E entries of all B patients together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TwoTowerConfig:
    """num_treatments and num_features as the catalogue has; dim: R."""

    num_treatments: int
    num_features: int
    dim: int = 64


class TwoTower(nn.Module):
    """Without layers between, so that what each treatment and feature adds to a score can be told."""

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__()
        self.by_treatment = nn.EmbeddingBag(config.num_treatments, config.dim, mode="sum")
        self.by_feature = nn.EmbeddingBag(max(config.num_features, 1), config.dim, mode="sum")
        self.everybody = nn.Parameter(torch.zeros(config.dim))
        self.of_treatments = nn.Linear(config.dim, config.num_treatments)
        for weights in (self.by_treatment.weight, self.by_feature.weight, self.of_treatments.weight):
            nn.init.normal_(weights, std=0.1)
        nn.init.zeros_(self.of_treatments.bias)

    def forward(self, treatments: Tensor, starts: Tensor, features: Tensor, feature_starts: Tensor) -> Tensor:
        """Logits (B, M).

        Args:
            treatments: int64 (E,), and starts: int64 (B,), where each patient's begin; features likewise. Sums are
            divided by the root of their length: long histories speak louder, but not in proportion.
        """
        had = self.by_treatment(treatments, starts) * _scale(starts, len(treatments))
        shown = self.by_feature(features, feature_starts) * _scale(feature_starts, len(features))
        return self.of_treatments(had + shown + self.everybody)  # (B, R) -> (B, M)


def _scale(starts: Tensor, total: int) -> Tensor:
    """(B, 1): one over the root of each bag's length; 1 for an empty one."""
    lengths = torch.diff(starts, append=torch.tensor([total]))
    return lengths.clamp(min=1).float().rsqrt()[:, None]
