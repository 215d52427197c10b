"""Models that the experiments share, in Flax, and problems made of them."""

from experiments.models.bert import BertClassifier, BertConfig, BertEncoder
from experiments.models.bert_checkpoint import load_bert
from experiments.models.checkpoints import Pretrained, find_checkpoint
from experiments.models.cnn import CNN
from experiments.models.image_problem import image_problem
from experiments.models.language_problem import language_problem, num_windows
from experiments.models.lstm import LSTM
from experiments.models.resnet import ResNet
from experiments.models.sentence_problem import sentence_problem
from experiments.models.transformer import Transformer
from experiments.models.vit import ViT, vit
from experiments.models.vit_checkpoint import Pixels, load_vit

__all__ = [
    "CNN",
    "LSTM",
    "BertClassifier",
    "BertConfig",
    "BertEncoder",
    "Pixels",
    "Pretrained",
    "ResNet",
    "Transformer",
    "ViT",
    "find_checkpoint",
    "image_problem",
    "language_problem",
    "load_bert",
    "load_vit",
    "num_windows",
    "sentence_problem",
    "vit",
]
