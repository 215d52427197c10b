"""Fine-tuning a checkpoint synchronously, as is usual: what the asynchronous numbers compare with.

AdamW, a warm-up and a linear decay, one worker. Sentences of like length go into one batch, so that
little is computed for padding. The run is saved now and then and goes on from there.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from async_optax.data import uniform_rows
from async_optax.validation import require_choice
from experiments.datasets import GLUE, TokenTask, checkpoint_tokens, glue
from experiments.models import find_checkpoint, load_bert, sentence_problem
from experiments.models.metrics import confusion_metrics

_SORTED_TOGETHER = 50  # batches: their examples are shuffled first, then sorted by length
_EVALUATED_TOGETHER = 64


@dataclasses.dataclass(frozen=True)
class Finetuning:
    """How a checkpoint is fine-tuned.

    Attributes:
      task: of GLUE.
      checkpoint: a folder in the layout of Hugging Face, or the name of one.
      num_epochs: passes over the training examples.
      batch_size: examples per step.
      lengths: in tokens, that batches are padded to; the last is where examples are cut.
      learning_rate: the highest.
      warm_up: share of the steps in which it rises.
      weight_decay: of AdamW.
      max_norm: gradients are clipped to.
      evaluate_every: steps.
      seed: of order, dropout and the map to the classes.
      num_train: the first training examples; ``None``: all.
    """

    task: str = "sst2"
    checkpoint: str = "minilm-l6"
    num_epochs: int = 1
    batch_size: int = 32
    lengths: tuple[int, ...] = (8, 12, 16, 24, 32, 48, 64)
    learning_rate: float = 1e-4
    warm_up: float = 0.1
    weight_decay: float = 0.01
    max_norm: float = 1.0
    evaluate_every: int = 100
    seed: int = 0
    num_train: int | None = None


def finetune(
    setting: Finetuning,
    save_to: Path,
    results: Path,
    report: Callable[[str], None],
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Trains, or goes on training where a checkpoint of this setting is found.

    Args:
      setting: how.
      save_to: file of the checkpoint, replaced at each evaluation.
      results: file that holds what was measured so far.
      report: called with a line at each evaluation.
      data_dir: see :func:`experiments.datasets.data_folder`.

    Returns:
      The setting, the number of steps, and the evaluations: ``step``, ``train_loss`` since the last
      one, ``seconds`` of computing so far, and the metrics of the validation examples.

    Raises:
      ImportError: if a package for the data is missing.
      ValueError: if task, data or checkpoint cannot be had, or ``save_to`` is of another setting.
    """
    require_choice("task", setting.task, tuple(GLUE))
    folder = find_checkpoint(setting.checkpoint, data_dir)
    task = checkpoint_tokens(
        glue(setting.task, setting.num_train, data_dir), folder, setting.lengths[-1]
    )
    loaded = load_bert(setting.checkpoint, task.num_classes, data_dir=data_dir)
    rows = uniform_rows(len(task.train["label"]), setting.batch_size)
    problem = sentence_problem(loaded.module, task, rows, pretrained=loaded.params)
    num_steps = setting.num_epochs * (len(task.train["label"]) // setting.batch_size)
    optimizer = _optimizer(setting, num_steps)
    init_key, key = jax.random.split(jax.random.key(setting.seed))
    params = problem.init(init_key)
    state = (params, optimizer.init(params))
    described = json.loads(json.dumps(dataclasses.asdict(setting)))
    state, step, history = _restored(save_to, described, state)

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(state: Any, batch: Any, step: jax.Array) -> tuple[Any, jax.Array]:
        params, optimizer_state = state
        dropout = jax.random.fold_in(key, step)
        loss, gradient = jax.value_and_grad(problem.loss)(params, batch, dropout)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), loss

    logits = jax.jit(_logits_of(loaded.module))
    seconds = history[-1]["seconds"] if history else 0.0
    losses: list[jax.Array] = []
    started = time.process_time()
    for now, batch in enumerate(_batches(task.train, setting, num_steps)):
        if now < step:
            continue
        state, loss = advance(state, batch, jnp.int32(now))
        losses.append(loss)
        if (now + 1) % setting.evaluate_every == 0 or now + 1 == num_steps:
            train_loss = float(np.mean([float(loss) for loss in losses]))
            seconds += time.process_time() - started
            entry = {"step": now + 1, "train_loss": train_loss, "seconds": round(seconds)}
            entry |= _evaluated(logits, state[0], task, setting)
            history.append({name: round(value, 4) for name, value in entry.items()})
            _save(save_to, described, state, now + 1, history)
            summary = {"setting": described, "num_steps": num_steps, "evaluations": history}
            _write(results, summary)
            report(f"step {now + 1} of {num_steps}: {history[-1]}")
            losses, started = [], time.process_time()
    return {"setting": described, "num_steps": num_steps, "evaluations": history}


def _optimizer(setting: Finetuning, num_steps: int) -> optax.GradientTransformation:
    rising = round(setting.warm_up * num_steps)
    peak = setting.learning_rate
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, rising),
            optax.linear_schedule(peak, 0.0, num_steps - rising),
        ],
        [rising],
    )
    return optax.chain(
        optax.clip_by_global_norm(setting.max_norm),
        optax.adamw(schedule, weight_decay=setting.weight_decay, mask=_decayed),
    )


def _decayed(params: Any) -> Any:
    """Matrices decay; biases and the scales of norms do not."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


def _batches(
    arrays: Mapping[str, np.ndarray], setting: Finetuning, num_steps: int
) -> Iterator[dict[str, np.ndarray]]:
    """The same batches at each call."""
    rng = np.random.Generator(np.random.PCG64(setting.seed))
    size, per_epoch = setting.batch_size, num_steps // setting.num_epochs
    sizes = arrays["mask"].sum(1)
    for _ in range(setting.num_epochs):
        order = rng.permutation(len(sizes))[: per_epoch * size]
        for start in range(0, len(order), _SORTED_TOGETHER * size):
            group = order[start : start + _SORTED_TOGETHER * size]
            parts = group[np.argsort(sizes[group], kind="stable")].reshape(-1, size)
            for rows in parts[rng.permutation(len(parts))]:
                yield _padded(arrays, rows, setting.lengths)


def _padded(
    arrays: Mapping[str, np.ndarray], rows: np.ndarray, lengths: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """The examples, cut to the least length that holds them all."""
    longest = int(arrays["mask"][rows].sum(1).max())
    length = next(length for length in lengths if length >= longest)
    return {name: x[rows, :length] if x.ndim > 1 else x[rows] for name, x in arrays.items()}


def _logits_of(module: Any) -> Callable[[Any, Any], jax.Array]:
    def logits(params: Any, batch: Any) -> jax.Array:
        return module.apply({"params": params}, batch["ids"], batch["types"], batch["mask"])

    return logits


def _evaluated(
    logits: Callable[[Any, Any], jax.Array], params: Any, task: TokenTask, setting: Finetuning
) -> dict[str, float]:
    arrays = task.validation
    order = np.argsort(arrays["mask"].sum(1), kind="stable")
    matrix = np.zeros((task.num_classes, task.num_classes))
    loss = 0.0
    for start in range(0, len(order), _EVALUATED_TOGETHER):
        rows = order[start : start + _EVALUATED_TOGETHER]
        filled = np.resize(rows, _EVALUATED_TOGETHER)  # one shape for all: the last is repeated
        found = logits(params, _padded(arrays, filled, setting.lengths))[: len(rows)]
        labels = arrays["label"][rows]
        losses = optax.softmax_cross_entropy_with_integer_labels(found, labels)
        loss += float(losses.sum())
        np.add.at(matrix, (labels, np.argmax(found, 1)), 1.0)
    metrics = {name: float(value) for name, value in confusion_metrics(jnp.array(matrix)).items()}
    return metrics | {"test_loss": loss / len(order)}


def _restored(path: Path, described: dict[str, Any], state: Any) -> tuple[Any, int, list[Any]]:
    if not path.exists():
        return state, 0, []
    with np.load(path) as file:
        saved = json.loads(str(file["about"]))
        if saved["setting"] != described:
            raise ValueError(f"{path} is of another setting: move it away, or name another folder")
        leaves, structure = jax.tree.flatten(state)
        state = jax.tree.unflatten(structure, [file[f"leaf_{i}"] for i in range(len(leaves))])
    return jax.tree.map(jnp.asarray, state), saved["step"], saved["evaluations"]


def _save(path: Path, described: dict[str, Any], state: Any, step: int, history: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps({"setting": described, "step": step, "evaluations": history})
    leaves = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    unfinished = path.with_name(f".{path.name}.unfinished.npz")
    np.savez(unfinished, about=about, **leaves)
    unfinished.replace(path)


def _write(path: Path, summary: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(summary) + "\n")
    unfinished.replace(path)
