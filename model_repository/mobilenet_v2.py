"""MobileNetV2 as in the paper (Sandler et al., 2018, table 2), with random weights of seed 0.

gen-repo export model_repository/mobilenet_v2.py:mobilenet_v2 mobilenet_v2.onnx
"""

from __future__ import annotations

import torch
from torch import nn

from tritonsmith_generator import Export

# Expansion factor, output channels, repeats, stride of the first repeat.
BLOCKS = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
    """Convolution, batch normalization, ReLU6; the size is kept but for the stride."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project without an activation; add the input if it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *([convolution(inputs, hidden, 1)] if expansion > 1 else []),
            convolution(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    """FP32[batch, 3, 224, 224] to FP32[batch, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(3, 32, 3, stride=2)]
        channels = 32
        for expansion, outputs, repeats, stride in BLOCKS:
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                layers.append(InvertedResidual(channels, outputs, step, expansion))
                channels = outputs
        self.features = nn.Sequential(*layers, convolution(channels, 1280, 1))
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image).mean((2, 3)))


def mobilenet_v2() -> Export:
    """Normalized by the statistics of noise, so that activations neither vanish nor grow."""
    torch.manual_seed(0)
    net = MobileNetV2()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(8, 3, 224, 224))
    return Export(
        net,
        {"image": torch.randn(2, 3, 224, 224)},
        dynamic={"image": {0: "batch"}},
        outputs=["logits"],
    )
