"""Data sets that the experiments share: images, texts, sentences, and what is done to them."""

from experiments.datasets.augmentation import flip, in_turn, mixup, pad_crop
from experiments.datasets.images import (
    IMAGES,
    Images,
    cifar10,
    digits,
    fashion_mnist,
    load_images,
    mnist,
    prepared_images,
)
from experiments.datasets.prepared import data_folder, open_prepared
from experiments.datasets.sentences import GLUE, Sentences, SentenceTask, agreement, glue
from experiments.datasets.texts import TEXTS, Text, grammar_text, load_text, shakespeare
from experiments.datasets.tokens import TokenTask, checkpoint_tokens, word_tokens

__all__ = [
    "GLUE",
    "IMAGES",
    "TEXTS",
    "Images",
    "SentenceTask",
    "Sentences",
    "Text",
    "TokenTask",
    "agreement",
    "checkpoint_tokens",
    "cifar10",
    "data_folder",
    "digits",
    "fashion_mnist",
    "flip",
    "glue",
    "grammar_text",
    "in_turn",
    "load_images",
    "load_text",
    "mixup",
    "mnist",
    "open_prepared",
    "pad_crop",
    "prepared_images",
    "shakespeare",
    "word_tokens",
]
