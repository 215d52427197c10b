"""Passes forward in NumPy, float64, from tensors under the names that Hugging Face gives them."""

import numpy as np
from scipy.special import erf


def _linear(tensors, name, x):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def _norm(tensors, name, x, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return unit * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def _gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def _attention(queries, keys, values, num_heads, hidden_keys=()):
    """Of one example, head by head: ``[length, width]``."""
    heads = []
    for q, k, v in zip(
        *(np.split(x, num_heads, axis=1) for x in (queries, keys, values)), strict=True
    ):
        scores = q @ k.T / np.sqrt(q.shape[1])
        scores[:, hidden_keys] = -np.inf
        shares = np.exp(scores - scores.max(1, keepdims=True))
        heads.append(shares / shares.sum(1, keepdims=True) @ v)
    return np.concatenate(heads, axis=1)


def bert(tensors, config, ids, types, mask):
    """Of one example: the last layer ``[length, hidden_size]``, and the pooled vector."""
    tensors = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
    epsilon = config["layer_norm_eps"]
    x = (
        tensors["embeddings.word_embeddings.weight"][ids]
        + tensors["embeddings.position_embeddings.weight"][np.arange(len(ids))]
        + tensors["embeddings.token_type_embeddings.weight"][types]
    )
    x = _norm(tensors, "embeddings.LayerNorm", x, epsilon)
    padding = np.flatnonzero(~np.asarray(mask))
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        parts = (
            _linear(tensors, f"{layer}.attention.self.{part}", x)
            for part in ("query", "key", "value")
        )
        gathered = _attention(*parts, config["num_attention_heads"], padding)
        gathered = _linear(tensors, f"{layer}.attention.output.dense", gathered)
        x = _norm(tensors, f"{layer}.attention.output.LayerNorm", x + gathered, epsilon)
        hidden = _gelu(_linear(tensors, f"{layer}.intermediate.dense", x))
        hidden = _linear(tensors, f"{layer}.output.dense", hidden)
        x = _norm(tensors, f"{layer}.output.LayerNorm", x + hidden, epsilon)
    return x, np.tanh(_linear(tensors, "pooler.dense", x[0]))


def vit(tensors, config, image):
    """Of one image ``[height, width, channels]``: the class token after the last norm."""
    tensors = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
    size, epsilon = config["patch_size"], config["layer_norm_eps"]
    kernel = tensors["embeddings.patch_embeddings.projection.weight"]
    rows = [tensors["embeddings.cls_token"][0, 0]]
    for top in range(0, image.shape[0], size):
        for left in range(0, image.shape[1], size):
            patch = image[top : top + size, left : left + size]
            rows.append(
                np.einsum("ochw,hwc->o", kernel, patch)
                + tensors["embeddings.patch_embeddings.projection.bias"]
            )
    x = np.stack(rows) + tensors["embeddings.position_embeddings"][0]
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        seen = _norm(tensors, f"{layer}.layernorm_before", x, epsilon)
        parts = (
            _linear(tensors, f"{layer}.attention.attention.{part}", seen)
            for part in ("query", "key", "value")
        )
        gathered = _attention(*parts, config["num_attention_heads"])
        x = x + _linear(tensors, f"{layer}.attention.output.dense", gathered)
        seen = _norm(tensors, f"{layer}.layernorm_after", x, epsilon)
        hidden = _gelu(_linear(tensors, f"{layer}.intermediate.dense", seen))
        x = x + _linear(tensors, f"{layer}.output.dense", hidden)
    return _norm(tensors, "layernorm", x, epsilon)[0]


def lstm(params, num_layers, tokens):
    """Of one sequence: logits ``[length, vocabulary_size]``."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    x = params["tokens"]["embedding"][tokens]
    for i in range(num_layers):
        layer = params[f"layer_{i}"]
        width = layer["recurrent"].shape[0]
        hidden, cell, outputs = np.zeros(width), np.zeros(width), []
        for now in x:
            gates = now @ layer["inputs"]["kernel"] + hidden @ layer["recurrent"] + layer["bias"]
            enter, forget, new, out = np.split(gates, 4)
            cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
            hidden = sigmoid(out) * np.tanh(cell)
            outputs.append(hidden)
        x = np.stack(outputs)
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def convolution(image, kernel, stride):
    """A 3x3 convolution of one image with a border of one zero."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    height, width = -(-image.shape[0] // stride), -(-image.shape[1] // stride)
    out = np.zeros((height, width, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            seen = padded[i * stride : i * stride + 3, j * stride : j * stride + 3]
            out[i, j] = np.einsum("hwc,hwco->o", seen, kernel)
    return out


def cosine(a, b):
    """Of the angle between two arrays."""
    a, b = (np.asarray(x, np.float64).ravel() for x in (a, b))
    return a @ b / np.sqrt((a @ a) * (b @ b))
