"""Augmentation: each image is one that may come out, and all that may do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.datasets import flip, in_turn, mixup, pad_crop

BATCH, SIDE, PADDING, CLASSES = 64, 5, 2, 4
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32)
LABELS = np.eye(CLASSES, dtype=np.float32)[RNG.integers(0, CLASSES, BATCH)]


def augmented(augment, seed=0):
    out = jax.jit(augment)(jax.random.key(seed), {"image": IMAGES, "label": LABELS})
    return np.asarray(out["image"]), np.asarray(out["label"])


def test_crops_are_crops_of_the_padded_images_everywhere():
    images, labels = augmented(pad_crop(PADDING))
    np.testing.assert_array_equal(labels, LABELS)
    seen = []
    for image, original in zip(images, IMAGES, strict=True):
        padded = np.pad(original, ((PADDING,) * 2, (PADDING,) * 2, (0, 0)))
        places = [
            (i, j)
            for i in range(2 * PADDING + 1)
            for j in range(2 * PADDING + 1)
            if np.array_equal(image, padded[i : i + SIDE, j : j + SIDE])
        ]
        assert len(places) == 1
        seen += places
    assert {i for i, _ in seen} == {j for _, j in seen} == set(range(2 * PADDING + 1))
    assert not np.array_equal(images, augmented(pad_crop(PADDING), seed=1)[0])


def test_half_of_the_images_are_mirrored():
    images, labels = augmented(flip())
    np.testing.assert_array_equal(labels, LABELS)
    mirrored = [np.array_equal(x, y[:, ::-1]) for x, y in zip(images, IMAGES, strict=True)]
    same = [np.array_equal(x, y) for x, y in zip(images, IMAGES, strict=True)]
    assert np.all(np.logical_xor(mirrored, same))
    assert 16 < sum(mirrored) < 48


def test_mixtures_are_of_two_images_in_one_proportion():
    images, labels = augmented(mixup(1.0), seed=3)
    # The proportion, from how far an image lies on its way to its partner.
    partners, shares = np.arange(BATCH), np.ones(BATCH)
    for i in range(BATCH):
        way = (images[i] - IMAGES[i]).ravel()
        if np.abs(way).max() < 1e-6:
            continue  # its own partner
        whole = (IMAGES - IMAGES[i]).reshape(BATCH, -1)
        along = whole @ way / np.maximum((whole**2).sum(1), 1e-12)
        rest = np.abs(along[:, None] * whole - way).max(1)
        partners[i] = np.argmin(rest)
        shares[i] = 1 - along[partners[i]]
        assert rest[partners[i]] < 1e-5
    assert sorted(partners) == list(range(BATCH))
    moved = partners != np.arange(BATCH)
    assert moved.sum() > BATCH / 2
    share = shares[moved][0]
    assert 0.02 < share < 0.98
    np.testing.assert_allclose(shares[moved], share, atol=1e-4)
    np.testing.assert_allclose(labels, share * LABELS + (1 - share) * LABELS[partners], atol=1e-4)


def test_in_turn_gives_each_a_key():
    both, _ = augmented(in_turn(flip(), flip()))
    mirrored = [np.array_equal(x, y[:, ::-1]) for x, y in zip(both, IMAGES, strict=True)]
    assert 16 < sum(mirrored) < 48  # with one key for both, none would be
    keys = jax.random.split(jax.random.key(0), 2)
    batch = {"image": jnp.asarray(IMAGES), "label": jnp.asarray(LABELS)}
    twice = flip()(keys[1], pad_crop(1)(keys[0], batch))
    np.testing.assert_array_equal(augmented(in_turn(pad_crop(1), flip()))[0], twice["image"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pad_crop(0), "padding must be an integer >= 1, got 0"),
        (lambda: mixup(0.0), "alpha must be a finite number > 0, got 0.0"),
    ],
)
def test_bad_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
