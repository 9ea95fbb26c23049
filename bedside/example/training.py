"""A small classifier for the example: standardisation and two layers, in one module."""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bedside.example.data import FEATURES

EXAMPLE_MODEL: Final = "breast-cancer"
THRESHOLD: Final = 0.5
EPOCHS: Final = 120
HIDDEN: Final = 32
# Keeps the probabilities from being more certain than 320 patients can justify.
LABEL_SMOOTHING: Final = 0.02


class Classifier(nn.Module):
    """Takes raw features float32 [n, 30]; returns probabilities float32 [n, 2], malignant second.

    The standardisation is part of the module, so that the exported artifact needs none before it.
    """

    def __init__(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.layers = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return unnormalised scores float32 [n, 2]."""
        scores: torch.Tensor = self.layers((x - self.mean) / self.scale)
        return scores

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return probabilities float32 [n, 2]."""
        return torch.softmax(self.logits(x), dim=-1)


def train(x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], *, seed: int = 7) -> Classifier:
    """Return a classifier fitted to features float32 [n, 30] and labels int64 [n]; deterministic."""
    torch.manual_seed(seed)
    features, labels = torch.from_numpy(x), torch.from_numpy(y)
    model = Classifier(features.mean(0), features.std(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(
            model.logits(features), labels, label_smoothing=LABEL_SMOOTHING
        )
        torch.autograd.backward(loss)
        optimizer.step()
    return model.eval()
