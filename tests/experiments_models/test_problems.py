"""The models as problems: gradients, dropout, workers with data of their own, evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

import async_optax as ao
from async_optax.data import equal_partition, label_partition, partition_rows, uniform_rows
from experiments.datasets import in_turn, mixup, pad_crop
from experiments.models import image_problem, language_problem, num_windows, sentence_problem
from experiments.models.evaluation import in_batches, sum_over
from experiments.models.metrics import confusion, confusion_metrics
from tests.experiments_models import small
from tests.experiments_models.small import (
    CONTEXT,
    LANGUAGE,
    MODULES,
    VISION,
    applied,
    drawn,
    images,
    problem,
)

AUGMENT = in_turn(pad_crop(1), mixup())  # classes are sides: they may not be flipped


@functools.cache
def started(name):
    """The problem, and its loss with the gradient, compiled."""
    made = problem(name)
    return made, jax.jit(jax.value_and_grad(made.loss))


@pytest.mark.parametrize("name", MODULES)
def test_gradients_reach_every_parameter(name):
    made, loss_and_grad = started(name)
    grads = [
        loss_and_grad(drawn(name), made.batch(jax.random.key(i), 0), jax.random.key(i))[1]
        for i in range(2)
    ]
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(grads[0]), jax.tree.leaves(grads[1]), strict=True
    ):
        where = jax.tree_util.keystr(path)
        reached = max(float(jnp.abs(leaf).max()), float(jnp.abs(other).max()))
        # What is added to all scores of a query changes no share: that gradient is zero.
        assert (reached < 1e-6) if where.endswith("['key']['bias']") else (reached > 1e-5), where


@pytest.mark.parametrize("name", ["ViT", "CNN", "LSTM", "Transformer", "BERT"])
def test_the_key_of_a_loss_decides_dropout(name):
    made, loss_and_grad = started(name)
    batch = made.batch(jax.random.key(0), 0)
    losses = [
        float(loss_and_grad(drawn(name), batch, jax.random.key(seed))[0]) for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_workers_with_images_of_their_own_learn_together():
    """A run: label skew, augmentation, dropout, and stale gradients."""
    partition = label_partition(images().train_labels, 3, concentration=0.3, seed=1)
    made = problem("CNN", rows=partition_rows(partition, 16), augment=AUGMENT, evaluation_batch=7)
    labels = {int(x) for x in images().train_labels[partition.of(1)]}
    drawn_by = jax.vmap(lambda i: made.batch(jax.random.key(i), 1)["label"])(jnp.arange(10))
    assert {int(x) for x in drawn_by.ravel()} == labels != set(range(4))
    timeline = ao.simulate_timeline(
        ao.protocols.asynchronous(), ao.runtimes.exponential(), 3, num_commits=100
    )
    result = ao.simulate(
        made,
        ao.optimizers.sgd(0.05),
        timeline,
        key=jax.random.key(0),
        lanes=1,
        evaluate_every=100,
    )
    first, last = result.evaluations["accuracy"][[0, -1]]
    assert first < 0.5
    assert last > 0.9


def test_workers_have_texts_of_their_own():
    number = num_windows(small.text(), CONTEXT, CONTEXT)
    assert number == (600 - CONTEXT - 1) // CONTEXT + 1
    partition = equal_partition(number, 4, seed=0)
    rows = partition_rows(partition, 5)
    made = problem("LSTM", rows=rows, stride=CONTEXT, batch_size=None)
    windows = np.asarray(made.batch(jax.random.key(0), 2))
    starts = np.asarray(rows(jax.random.key(0), 2))
    assert set(starts) <= set(partition.of(2))
    for window, start in zip(windows, starts, strict=True):
        begin = start * CONTEXT
        np.testing.assert_array_equal(window, small.text().train[begin : begin + CONTEXT + 1])
    last = np.asarray(made.batch(jax.random.key(0), int(partition.owners[-1])))
    assert last.shape == (5, CONTEXT + 1)


def test_images_are_evaluated_in_batches_as_scaled_and_sized():
    scale = {"mean": [0.1, 0.2, 0.3], "deviation": [0.2, 0.3, 0.4]}
    train, test = (x.repeat(2, 1).repeat(2, 2) for x in (images().train, images().test))
    larger = images()._replace(train=train, test=test)
    made = image_problem(
        VISION["ViT"](), larger, uniform_rows(60, 4), image_size=8, evaluation_batch=7, **scale
    )
    found = jax.jit(made.evaluate)(drawn("ViT"))
    pixels = (larger.test / 255 - np.array(scale["mean"])) / np.array(scale["deviation"])
    pixels = jax.image.resize(pixels.astype(np.float32), (30, 8, 8, 3), "bilinear")
    logits = np.asarray(applied("ViT")(drawn("ViT"), pixels))
    labels = images().test_labels
    assert float(found["accuracy"]) == pytest.approx(np.mean(logits.argmax(1) == labels))
    assert float(found["test_loss"]) == pytest.approx(cross_entropy(logits, labels), rel=1e-4)


def test_sentences_are_evaluated_in_batches():
    found = jax.jit(problem("BERT", evaluation_batch=8).evaluate)(drawn("BERT"))
    part = small.sentences().validation
    assert len(part["label"]) == 21
    logits = np.asarray(applied("BERT")(drawn("BERT"), part["ids"], part["types"], part["mask"]))
    assert float(found["accuracy"]) == pytest.approx(np.mean(logits.argmax(1) == part["label"]))
    wanted = cross_entropy(logits, part["label"])
    assert float(found["test_loss"]) == pytest.approx(wanted, rel=1e-4)
    assert sorted(found) == ["accuracy", "f1", "matthews_correlation", "test_loss"]


def test_perplexity_is_that_of_all_windows():
    found = jax.jit(problem("Transformer", evaluation_batch=8).evaluate)(drawn("Transformer"))
    validation = small.text().validation
    starts = np.arange(0, len(validation) - CONTEXT, CONTEXT)
    windows = np.stack([validation[start : start + CONTEXT + 1] for start in starts])
    logits = applied("Transformer")(drawn("Transformer"), windows[:, :-1].astype(np.int32))
    wanted = cross_entropy(np.asarray(logits).reshape(-1, 40), windows[:, 1:].ravel())
    assert float(found["test_loss"]) == pytest.approx(wanted, rel=1e-4)
    assert float(found["perplexity"]) == pytest.approx(np.exp(wanted), rel=1e-3)


def cross_entropy(logits, labels):
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_shares = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -log_shares[np.arange(len(labels)), labels].mean()


def test_sums_over_batches():
    values = np.arange(10.0, dtype=np.float32)
    batches, counts = in_batches({"x": values}, 4)
    assert batches["x"].shape == counts.shape == (3, 4)
    total = sum_over(lambda batch, count: jnp.sum(batch["x"] * count), batches, counts)
    assert float(total) == 45
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        in_batches(values, 0)


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, 50), rng.normal(size=(50, 2)).astype(np.float32)
    guesses = logits.argmax(1)
    found = confusion_metrics(confusion(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(50)))
    assert float(found["accuracy"]) == pytest.approx(metrics.accuracy_score(labels, guesses))
    assert float(found["f1"]) == pytest.approx(metrics.f1_score(labels, guesses))
    wanted = metrics.matthews_corrcoef(labels, guesses)
    assert float(found["matthews_correlation"]) == pytest.approx(wanted)
    one_guess = confusion_metrics(jnp.array([[3.0, 0.0], [2.0, 0.0]]))
    assert [float(one_guess[name]) for name in ("f1", "matthews_correlation")] == [0, 0]
    assert list(confusion_metrics(jnp.eye(3))) == ["accuracy"]


def test_trained_parameters_are_where_training_starts():
    trained = {key: value for key, value in drawn("BERT").items() if key != "head"}
    begun = problem("BERT", pretrained=trained).init(jax.random.key(9))
    for key, value in trained.items():
        jax.tree.map(np.testing.assert_array_equal, begun[key], value)
    assert 0.01 < np.std(begun["head"]["kernel"]) < 0.03
    with pytest.raises(ValueError, match=r"pretrained\['head'\] must have the shapes .*, got"):
        problem("BERT", pretrained={"head": jnp.zeros(3)})


def bad_labels():
    return images()._replace(train_labels=np.full(60, 4, np.int32))


REFUSED = {
    "a label too many": (
        lambda: image_problem(VISION["CNN"](), bad_labels(), uniform_rows(60, 4)),
        "num_classes=4 of the module leaves out label 4",
    ),
    "no deviation": (
        lambda: problem("CNN", deviation=0.0),
        "deviation must be a finite number > 0, got 0",
    ),
    "rows of other data": (
        lambda: problem("CNN", rows=uniform_rows(61, 4)),
        "rows draws from 61 examples, but the data has 60",
    ),
    "rows and batch size": (
        lambda: problem("LSTM", rows=uniform_rows(60, 4)),
        "give batch_size or rows, and not both",
    ),
    "windows too many": (
        lambda: problem("LSTM", rows=uniform_rows(595, 4), batch_size=None),
        "rows draws from 595 examples, but the data has 594",
    ),
    "a text too short": (
        lambda: language_problem(LANGUAGE["LSTM"](), small.text(), context=60, batch_size=1),
        "context must be below the text's 60 characters, got 60",
    ),
    "an alphabet too large": (
        lambda: language_problem(
            LANGUAGE["LSTM"]().clone(vocabulary_size=9), small.text(), context=6, batch_size=1
        ),
        "vocabulary_size=9 of the module is below the alphabet's",
    ),
    "words too many": (
        lambda: sentence_problem(
            MODULES["BERT"](), small.sentences()._replace(vocabulary_size=401), uniform_rows(40, 4)
        ),
        "vocabulary_size of the task must be at most the model's 400, got 401",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make()
