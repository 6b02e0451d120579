"""The tagger at serving: its members, and their fusion, over a micro-batch."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch

from tagstream.core.events import ImageUse
from tagstream.core.ports import MicroBatch
from tagstream.core.taxonomy import Taxonomy
from tagstream.model.fusion import IMAGE, JOINT, MEMBERS, TEXT, Fusion, Opinions, named_groups
from tagstream.model.members import ImageMembers, TextMember
from tagstream.model.pictures import Frame, decode_all
from tagstream.model.towers.base import Prepared
from tagstream.text.mentions import Mentions

#: More pictures at once gain no speed on a CPU and cost memory: 64 need about 250 MB of activations.
PICTURES_AT_ONCE = 64


class Members:
    """The trained members, and what each says of a micro-batch. The same code in training and at serving."""

    def __init__(
        self,
        taxonomy: Taxonomy,
        text: TextMember | None,
        image_members: ImageMembers | None,
        image_columns: npt.NDArray[np.int64],
        frame: Frame | None,
        device: torch.device | None = None,
    ) -> None:
        """`image_columns`: the taxonomy's columns that the picture's heads mean, in order."""
        self.taxonomy, self.text, self.image_members, self.frame = taxonomy, text, image_members, frame
        self._device = device or torch.device("cpu")
        self._mentions = Mentions(taxonomy)
        self._image_columns = torch.from_numpy(image_columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Those of `fusion.MEMBERS` that were trained."""
        joint = self.image_members is not None and self.image_members.joint is not None
        there = (self.text is not None, self.image_members is not None, joint)
        return tuple(name for name, yes in zip(MEMBERS, there, strict=True) if yes)

    def opinions(self, batch: MicroBatch) -> tuple[Opinions, list[ImageUse]]:
        """What each member says, and what became of each picture; a model without pictures looks at none."""
        n, size = len(batch), self.taxonomy.size
        logits = torch.zeros(len(MEMBERS), n, size)
        mentions = self._mentions.find(batch.texts)
        with torch.inference_mode():
            has_text = np.zeros(n, bool)
            if self.text is not None:
                prepared = self.text.tower.prepare(batch.texts)
                has_text = self.text.tower.has_text(prepared)
                logits[TEXT] = self.text(prepared, torch.from_numpy(mentions)).float().cpu()
            uses: list[ImageUse] = ["none" if image is None else "unusable" for image in batch.images]
            if self.image_members is not None and self.frame is not None:
                pictures, uses = decode_all(batch.images, self.frame, self._device)
                rows = np.flatnonzero([use == "used" for use in uses])
                texts = None
                if self.image_members.joint is not None:
                    texts = self.image_members.joint.text.prepare([batch.texts[row] for row in rows])
                for places in np.array_split(np.arange(len(rows)), -(-len(rows) // PICTURES_AT_ONCE) or 1):
                    if not len(places):
                        continue  # no picture at all: not every encoder takes an empty batch
                    at = torch.from_numpy(rows[places])[:, None]
                    image, joint = self._see(
                        pictures[torch.from_numpy(places).to(pictures.device)],
                        None if texts is None else texts.take(places),
                        mentions[rows[places]],
                        has_text[rows[places]],
                    )
                    logits[IMAGE][at, self._image_columns] = image.float().cpu()
                    if joint is not None:
                        logits[JOINT][at, self._image_columns] = joint.float().cpu()
        has_image = torch.tensor([use == "used" for use in uses], dtype=torch.bool)
        named = named_groups(mentions, self.taxonomy)
        return Opinions(logits, torch.from_numpy(has_text), has_image, named), uses

    def _see(
        self,
        pictures: torch.Tensor,
        texts: Prepared | None,
        mentions: npt.NDArray[np.float32],
        has_text: npt.NDArray[np.bool_],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        assert self.image_members is not None
        seen = self.image_members.image.tower.prepare(pictures).rows.to(self._device)
        there = torch.from_numpy(has_text).to(self._device)
        answer: tuple[torch.Tensor, torch.Tensor | None] = self.image_members(
            seen, texts, torch.from_numpy(mentions[:, self._image_columns.numpy()]), there
        )
        return answer

    def with_text(self, text: TextMember) -> Members:
        """The same members but for the text member."""
        return Members(
            self.taxonomy, text, self.image_members, self._image_columns.numpy(), self.frame, self._device
        )

    def for_serving(self, device: torch.device) -> Members:
        """A copy that answers the same, faster, on this device."""
        text, image_members = copy.deepcopy(self.text), copy.deepcopy(self.image_members)
        if text is not None:
            text = text.eval().to(device)
        if image_members is not None:
            image_members = image_members.eval().to(device)
            image_members.image.tower = image_members.image.tower.for_serving(device)
        return Members(self.taxonomy, text, image_members, self._image_columns.numpy(), self.frame, device)


class FusedTagger:
    """A model version in memory, with its own copies of the weights. Threads may call it at once."""

    def __init__(self, model_version: str, members: Members, fusion: Fusion, device: torch.device) -> None:
        self.model_version = model_version
        self.taxonomy = members.taxonomy
        self.device = device
        self._members = members.for_serving(device)
        self._fusion = copy.deepcopy(fusion).eval()

    @property
    def frame(self) -> Frame | None:
        """The size that pictures are fitted into; None for a tagger that looks at none."""
        return self._members.frame

    def score(self, batch: MicroBatch) -> tuple[npt.NDArray[np.float32], list[ImageUse]]:
        """Calibrated probabilities (events, taxonomy.size), and per event what became of its picture.

        A picture that does not decode, or claims more than `pictures.MAX_PIXELS`, is `unusable` and the
        event is scored by its text alone; an event without text is scored by its picture alone.
        """
        said, uses = self._members.opinions(batch)
        with torch.inference_mode():
            scores: npt.NDArray[np.float32] = self._fusion(said).numpy()
        return scores, uses
