"""SimpleNet, trained on scikit-learn's handwritten digits, and exported.

    pip install 'tritonsmith[torch]' scikit-learn
    python model_repository/train_simplenet.py

The digits (1797 images of 8x8 pixels, values 0 to 16) are scaled to 0..1 and upsampled to 28x28.
A fifth of them, the same in each run, is held out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import sklearn.datasets
import torch
from torch import nn
from torch.nn import functional

from tritonsmith_generator import Export

SEED = 0
EPOCHS = 40
BATCH = 64


class SimpleNet(nn.Module):
    """784 pixels to 10 logits, through 128 and 64 units."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
        )

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.layers(input)


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images FP32[1797, 784] in 0..1, labels INT64[1797], and an order that mixes them."""
    data = sklearn.datasets.load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 16
    images = functional.interpolate(images, size=(28, 28), mode="bilinear", align_corners=False)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))
    return images.flatten(1), torch.from_numpy(data.target), order


def simplenet() -> Export:
    """Train for about ten seconds; `gen-repo export` calls this."""
    torch.manual_seed(SEED)
    images, labels, order = digits()
    held_out, train = order[: len(order) // 5], order[len(order) // 5 :]
    net = SimpleNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
    for _ in range(EPOCHS):
        for batch in train[torch.randperm(len(train))].split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        right = (net(images[held_out]).argmax(1) == labels[held_out]).sum().item()
    accuracy = f"{right} of {len(held_out)} held-out images ({right / len(held_out):.1%})"
    print(f"trained on {len(train)} images; right on {accuracy}")
    return Export(
        net,
        {"input": images[held_out[:2]]},
        dynamic={"input": {0: "batch"}},
        outputs=["output"],
        metadata={
            "origin": "trained by tritonsmith's model_repository/train_simplenet.py "
            "on sklearn.datasets.load_digits, upsampled to 28x28",
            "accuracy": accuracy,
            "torch": torch.__version__,
        },
    )


if __name__ == "__main__":
    here = Path(__file__).parent
    export = [sys.executable, "-m", "tritonsmith_generator", "export"]
    source, output = f"{__file__}:simplenet", here / "simplenet.onnx"
    sys.exit(subprocess.run([*export, source, output, "--force"]).returncode)
