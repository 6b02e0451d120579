"""The fused tagger at serving: both halves and their fusion over a micro-batch."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tagstream.core.events import ImageUse
from tagstream.core.ports import MicroBatch
from tagstream.core.taxonomy import Taxonomy
from tagstream.model.features import HashedNgrams
from tagstream.model.fusion import Fusion
from tagstream.model.image import MEAN, SCALE, ImageTower, native_bf16
from tagstream.model.mentions import Mentions
from tagstream.model.pictures import Frame, decode_all
from tagstream.model.text import TextTower, text_logits

#: More pictures at once gain no speed on a CPU and cost memory: 64 need about 250 MB of activations.
PICTURES_AT_ONCE = 64


class FusedTagger:
    """A model version in memory. One call at a time; holds its own copies of the weights.

    Batch normalisation is folded, and the convolutions run in bf16 where the processor has it natively.
    """

    def __init__(
        self,
        model_version: str,
        taxonomy: Taxonomy,
        ngrams: HashedNgrams,
        frame: Frame,
        text: TextTower,
        image: ImageTower,
        image_columns: npt.NDArray[np.int64],
        fusion: Fusion,
        device: torch.device,
    ) -> None:
        """`image_columns`: the taxonomy's columns that the picture half's outputs mean, in order."""
        self.model_version = model_version
        self.taxonomy = taxonomy
        self._ngrams = ngrams
        self._mentions = Mentions(taxonomy, ngrams.max_characters)
        self._frame = frame
        self._device = device
        self._text = copy.deepcopy(text).eval()
        self._fusion = copy.deepcopy(fusion).eval()
        self._image_columns = torch.from_numpy(image_columns)
        self._dtype = torch.bfloat16 if native_bf16(device) else torch.float32
        tower = copy.deepcopy(image).eval()
        self._backbone = tower.backbone.fold().to(device, self._dtype)
        self._backbone = self._backbone.to(memory_format=torch.channels_last)
        self._heads = tower.heads.to(device)

    def score(self, batch: MicroBatch) -> tuple[npt.NDArray[np.float32], list[ImageUse]]:
        """Calibrated probabilities (events, taxonomy.size), and per event what became of its picture.

        A picture that does not decode, or claims more than `pictures.MAX_PIXELS`, is `unusable` and the
        event is scored by its text alone; an event without text is scored by its picture alone.
        """
        with torch.inference_mode():
            text, has_text = text_logits(self._text, batch.texts, self._ngrams, self._mentions)
            pictures, uses = decode_all(batch.images, self._frame, self._device)
            has_image = torch.tensor([use == "used" for use in uses], dtype=torch.bool)
            image = torch.zeros(len(batch), self.taxonomy.size)
            if len(pictures):
                logits = torch.cat(
                    [self._image_logits(part) for part in torch.split(pictures, PICTURES_AT_ONCE)]
                )
                rows = has_image.nonzero()
                image[rows, self._image_columns] = logits
            scores = self._fusion(text, image, torch.from_numpy(has_text), has_image)
        return scores.numpy(), uses

    def _image_logits(self, pictures: Tensor) -> Tensor:
        x = ((pictures.float() - MEAN) / SCALE).to(self._dtype, memory_format=torch.channels_last)
        logits: Tensor = self._heads(self._backbone(x).float()).cpu()
        return logits
