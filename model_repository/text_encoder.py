"""A small transformer that turns token numbers into one vector per text.

    gen-repo export model_repository/text_encoder.py:text_encoder model_repository/text_encoder.onnx

Its weights are random, from a fixed seed: it shows integer inputs and two dynamic axes, and
knows no language.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from tritonsmith_generator import Export

VOCABULARY, POSITIONS = 2000, 256
WIDTH, HEADS, LAYERS = 128, 4, 2
# Added to the scores of padding; -inf would make a text of padding alone NaN.
MASKED = -1e4


class Layer(nn.Module):
    """Self-attention and a feed-forward network, each behind a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.feed_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.merge = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for part in self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + bias
        x = x + self.merge((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return x + self.feed(self.feed_norm(x))


class TextEncoder(nn.Module):
    """INT64[batch, sequence] twice to FP32[batch, 128] of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Parameter(torch.randn(POSITIONS, WIDTH) * 0.1)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask.float()
        bias = (1 - mask)[:, None, None, :] * MASKED
        x = self.tokens(input_ids) + self.positions[: input_ids.shape[1]]
        for layer in self.layers:
            x = layer(x, bias)
        weights = mask[:, :, None]
        mean = (self.norm(x) * weights).sum(1) / weights.sum(1).clamp(min=1)
        return functional.normalize(mean, dim=-1)


def text_encoder() -> Export:
    """Two example texts of 16 tokens, the second padded after 10."""
    torch.manual_seed(0)
    net = TextEncoder()
    input_ids = torch.randint(VOCABULARY, (2, 16))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 10:] = 0
    axes = {0: "batch", 1: "sequence"}
    return Export(
        net,
        {"input_ids": input_ids, "attention_mask": attention_mask},
        dynamic={"input_ids": axes, "attention_mask": axes},
        outputs=["embedding"],
        metadata={
            "origin": "exported from tritonsmith's model_repository/text_encoder.py; random "
            "weights of seed 0",
            "torch": torch.__version__,
        },
    )
