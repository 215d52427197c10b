"""What is compared: methods, their protocols, and what they are tuned over.

Learning rates are in units of four kinds, so that one grid of powers of two does for all
thresholds: ``plain``, of SGD; ``norm`` and ``sign``, the largest norm and the largest coordinate of
a step, which is the learning rate times the threshold; ``adam``.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import optax
from jax.tree_util import Partial

from async_optax import optimizers, protocols, weights
from async_optax.timelines.protocols import Protocol
from async_optax.transforms import (
    accumulate_until_commit,
    bi_clip,
    clip_by_global_norm,
    compensate_delay_dynamic,
    scale_by_staleness,
    sweepable,
)
from experiments.heavy_tailed.config import Preset

SYNCHRONOUS, ASYNCHRONOUS = "synchronous", "asynchronous"
WAIT, NO_WAIT, RINGMASTER = "buffered, wait", "buffered, no wait", "Ringmaster"
START = {"plain": 0.1, "norm": 0.05, "sign": 0.001, "adam": 0.004}
OFF = 1e9  # workers up to which a weight is 1: no staleness is weighed
KAPPA = 0.25  # compensation of coordinates, in units of 1 / threshold**2
_COORDINATES = (0.001, 0.01)
_NORMS = (0.1, 1.0)
_MOMENTA = ({"b1": 0.9}, {"b1": 0.5}, {"b1": 0.0})
_OF_NORMS = 1e4  # a kappa for clipped norms: their coordinates are that much smaller, squared
_MAX_RATIO = 0.5

Choice = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Method:
    """A method on a protocol.

    Attributes:
      name: in tables.
      protocol: name of its protocol.
      make: ``make(rate, **choice)``, an optimizer.
      unit: kind of its learning rate.
      choices: what else it is tuned over.
      like: the method whose choice it takes, which has as many; ``None``: its own best.
      role: ``"baseline"``; ``"ours"``, of which the one that ends best on the tuning seeds is what
        claims are about; ``"variant"``, with another protocol or compensation; or ``"ablation"``:
        a part of ours, or synchronous.
    """

    name: str
    protocol: str
    make: Callable[..., optax.GradientTransformation]
    unit: str
    choices: tuple[Choice, ...] = ({},)
    role: str = "baseline"
    like: str | None = None


@sweepable
def weighted(rate: float, workers: float) -> optax.GradientTransformationExtraArgs:
    """SGD with weights that begin to fall at a staleness of ``workers``."""
    return optimizers.delay_adaptive_sgd(rate, workers)


@sweepable
def dc_asgd(rate: float, strength: float) -> optax.GradientTransformationExtraArgs:
    return optimizers.dc_asgd(rate, strength)


@sweepable
def fedbuff(rate: float) -> optax.GradientTransformationExtraArgs:
    return optimizers.fedbuff(rate)


@sweepable
def fadas(rate: float, b1: float) -> optax.GradientTransformationExtraArgs:
    return optimizers.fadas(rate, b1=b1)


@sweepable
def adam(rate: float, b1: float = 0.9) -> optax.GradientTransformationExtraArgs:
    return accumulate_until_commit(optax.adam(rate, b1=b1))


@sweepable
def clipped_adam(rate: float, max_norm: float) -> optax.GradientTransformationExtraArgs:
    return accumulate_until_commit(optax.chain(clip_by_global_norm(max_norm), optax.adam(rate)))


@sweepable
def clipped_at_commit(rate: float, max_norm: float) -> optax.GradientTransformationExtraArgs:
    """Synchronous SGD as it is clipped in practice: the sum of all workers' gradients."""
    server = optax.chain(clip_by_global_norm(max_norm), optax.sgd(rate / max_norm))
    return accumulate_until_commit(server)


@sweepable
def by_norm(
    rate: float, threshold: float, workers: float, kappa: float
) -> optax.GradientTransformationExtraArgs:
    return optimizers.async_heavy_tailed(
        rate / threshold,
        "global_norm",
        threshold,
        weight_fn=weights.concurrency(workers),
        compensation=kappa,
        max_ratio=_MAX_RATIO,
    )


@sweepable
def by_coordinate(
    rate: float, threshold: float, floor: float, workers: float, kappa: float
) -> optax.GradientTransformationExtraArgs:
    """``floor`` is the lower threshold of BiClip, in units of the upper one."""
    return optimizers.async_heavy_tailed(
        rate / threshold,
        "coordinate",
        threshold,
        lower=floor * threshold,
        weight_fn=weights.concurrency(workers),
        compensation=kappa,
        max_ratio=_MAX_RATIO,
    )


@sweepable
def adaptive_clip(
    rate: float, workers: float, kappa: float
) -> optax.GradientTransformationExtraArgs:
    return optimizers.async_heavy_tailed(
        rate,
        "adaptive",
        weight_fn=weights.concurrency(workers),
        compensation=kappa,
        max_ratio=_MAX_RATIO,
    )


@sweepable
def adaptive_adam(
    rate: float, b1: float, workers: float, kappa: float
) -> optax.GradientTransformationExtraArgs:
    """As :func:`adaptive_clip`, and Adam takes what is gathered as its gradient."""
    return optimizers.async_heavy_tailed(
        rate,
        "adaptive",
        weight_fn=weights.concurrency(workers),
        compensation=kappa,
        max_ratio=_MAX_RATIO,
        server=Partial(optax.adam, b1=b1),
    )


@sweepable
def adam_server(
    rate: float, threshold: float, floor: float, workers: float, kappa: float, b1: float = 0.9
) -> optax.GradientTransformationExtraArgs:
    """As :func:`by_coordinate`, and Adam takes what is gathered as its gradient."""
    return optimizers.async_heavy_tailed(
        rate,
        "coordinate",
        threshold,
        lower=floor * threshold,
        weight_fn=weights.concurrency(workers),
        compensation=kappa,
        max_ratio=_MAX_RATIO,
        server=Partial(optax.adam, b1=b1),
    )


@sweepable
def dynamic_compensation(
    rate: float, threshold: float, floor: float, workers: float
) -> optax.GradientTransformationExtraArgs:
    return optax.chain(
        bi_clip(floor * threshold, threshold),
        compensate_delay_dynamic(),
        scale_by_staleness(weights.concurrency(workers)),
        accumulate_until_commit(optax.sgd(rate / threshold)),
    )


def methods(preset: Preset) -> tuple[Method, ...]:
    """Returns all methods, in the order of the tables."""
    n, commits = float(preset.num_workers), preset.num_workers / preset.buffer
    norms = tuple({"max_norm": c} for c in _NORMS)

    def floors(**fixed: float) -> tuple[Choice, ...]:
        clips = [(c, 0.0) for c in _COORDINATES] + [(_COORDINATES[-1], 0.1)]
        return tuple({"threshold": c, "floor": floor, **fixed} for c, floor in clips)

    def whole(**fixed: float) -> tuple[Choice, ...]:
        return tuple({"threshold": c, **fixed} for c in _NORMS)

    def momenta(**fixed: float) -> tuple[Choice, ...]:
        clips = [(_COORDINATES[0], 0.9), (_COORDINATES[0], 0.5), (_COORDINATES[1], 0.9)]
        return tuple({"threshold": c, "floor": 0.0, "b1": b1, **fixed} for c, b1 in clips)

    def adaptive(**fixed: float) -> tuple[Choice, ...]:
        return tuple({**choice, **fixed} for choice in _MOMENTA)

    bi, l2, both = "ours, BiClip", "ours, L2", "ours, adaptive clip, Adam"
    on = {"workers": n, "kappa": KAPPA}
    on_l2 = {"workers": n, "kappa": _OF_NORMS * KAPPA}
    buffered_on = {"workers": commits, "kappa": KAPPA}
    off = {"workers": OFF, "kappa": 0.0}
    return (
        Method("SGD", SYNCHRONOUS, weighted, "plain", ({"workers": OFF},)),
        Method("clipped SGD", SYNCHRONOUS, clipped_at_commit, "norm", norms),
        Method("Adam", SYNCHRONOUS, adam, "adam"),
        Method("clipped Adam", SYNCHRONOUS, clipped_adam, "adam", norms),
        Method("asynchronous SGD", ASYNCHRONOUS, weighted, "plain", ({"workers": OFF},)),
        Method("delay-adaptive SGD", ASYNCHRONOUS, weighted, "plain", ({"workers": n},)),
        Method("clipped asynchronous SGD", ASYNCHRONOUS, by_norm, "norm", whole(**off)),
        Method("DC-ASGD", ASYNCHRONOUS, dc_asgd, "plain", ({"strength": 0.04}, {"strength": 10.0})),
        Method("Ringmaster", RINGMASTER, weighted, "plain", ({"workers": OFF},)),
        Method("FedBuff", NO_WAIT, fedbuff, "plain"),
        Method("FADAS", NO_WAIT, fadas, "adam", _MOMENTA),
        Method("asynchronous Adam", ASYNCHRONOUS, adam, "adam", _MOMENTA),
        Method(both, ASYNCHRONOUS, adaptive_adam, "adam", adaptive(**on), "ours"),
        Method(f"{bi}, Adam", ASYNCHRONOUS, adam_server, "adam", momenta(**on), "ours"),
        Method(bi, ASYNCHRONOUS, by_coordinate, "sign", floors(**on), "ours"),
        Method(f"{bi}, wait", WAIT, by_coordinate, "sign", floors(**buffered_on), "variant", bi),
        Method(
            f"{bi}, no wait", NO_WAIT, by_coordinate, "sign", floors(**buffered_on), "variant", bi
        ),
        Method(
            f"{bi}, Adam, no wait",
            NO_WAIT,
            adam_server,
            "adam",
            floors(**buffered_on),
            "variant",
            bi,
        ),
        Method(l2, ASYNCHRONOUS, by_norm, "norm", whole(**on_l2), "ours"),
        Method("ours, adaptive clip", ASYNCHRONOUS, adaptive_clip, "sign", (on,), "ours"),
        Method(
            "ours, dynamic compensation",
            ASYNCHRONOUS,
            dynamic_compensation,
            "sign",
            floors(workers=n),
            "variant",
            bi,
        ),
        *(
            Method(
                f"{both}, {part}",
                ASYNCHRONOUS,
                adaptive_adam,
                "adam",
                adaptive(**on | without),
                "ablation",
                both,
            )
            for part, without in (
                ("no weights", {"workers": OFF}),
                ("no compensation", {"kappa": 0.0}),
                ("clip alone", off),
            )
        ),
        Method(
            f"{bi}, no weights",
            ASYNCHRONOUS,
            by_coordinate,
            "sign",
            floors(**on | {"workers": OFF}),
            "ablation",
            bi,
        ),
        Method(
            f"{bi}, no compensation",
            ASYNCHRONOUS,
            by_coordinate,
            "sign",
            floors(**on | {"kappa": 0.0}),
            "ablation",
            bi,
        ),
        Method(
            f"{bi}, clip alone", ASYNCHRONOUS, by_coordinate, "sign", floors(**off), "ablation", bi
        ),
        Method(
            f"{l2}, no weights",
            ASYNCHRONOUS,
            by_norm,
            "norm",
            whole(**on_l2 | {"workers": OFF}),
            "ablation",
            l2,
        ),
        Method(
            f"{l2}, no compensation",
            ASYNCHRONOUS,
            by_norm,
            "norm",
            whole(**on_l2 | {"kappa": 0.0}),
            "ablation",
            l2,
        ),
        Method(
            "BiClip, synchronous", SYNCHRONOUS, by_coordinate, "sign", floors(**off), "ablation"
        ),
    )


def protocol_of(name: str, preset: Preset) -> Protocol:
    """Returns a protocol by its name."""
    found: dict[str, Any] = {
        SYNCHRONOUS: protocols.synchronous(),
        ASYNCHRONOUS: protocols.asynchronous(),
        WAIT: protocols.buffered(preset.buffer, wait=True),
        NO_WAIT: protocols.buffered(preset.buffer, wait=False),
        RINGMASTER: protocols.ringmaster(preset.num_workers),
    }
    return found[name]
