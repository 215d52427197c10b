"""What real workers train, and by which method: flags of ``train``, kept in the run's trace."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any, Literal

import optax

from async_optax import optimizers
from async_optax.cli.arguments import method_arguments
from async_optax.cli.run import DigitsProblem
from async_optax.cli.setting import Noise, naming
from async_optax.distributed import compressed
from async_optax.engine import Problem, WorkerProgram, gradient
from async_optax.problems import digits
from async_optax.validation import require_choice, require_count, require_number


@dataclasses.dataclass(frozen=True)
class Method:
    """What the server does with gradients."""

    method: str = "async_heavy_tailed"
    """A name; `async-optax methods` lists them."""
    learning_rate: float = 0.25
    arguments: dict[str, str] = dataclasses.field(default_factory=dict)
    """Of the method, as name value pairs, such as `threshold 0.05 weight_fn concurrency`."""

    def make(self, num_workers: int) -> optax.GradientTransformation:
        """Builds the optimizer."""
        factory = optimizers.get(self.method)
        arguments = method_arguments(factory, self.arguments, num_workers)
        unused = self.arguments.keys() - arguments.keys()
        if unused:
            raise ValueError(f"arguments: {self.method} does not take {', '.join(sorted(unused))}")
        return optimizers.make(self.method, learning_rate=self.learning_rate, **arguments)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained, and what workers send: the same for a run and its replay."""

    digits: DigitsProblem = DigitsProblem()
    noise: Noise = Noise()
    compression: Literal["none", "bfloat16", "top", "threshold"] = "none"
    """Of what workers send, with error feedback."""
    amount: float | None = None
    """Of the compression: the share of entries for top, the least magnitude for threshold."""

    def problem(self) -> Problem:
        """Builds the problem."""
        with naming("--digits"):
            problem = digits(self.digits.hidden, self.digits.batch_size)
        with naming("--noise"):
            return problem.with_noise(self.noise.make())

    def program(self) -> WorkerProgram:
        """Builds the worker program."""
        if self.compression == "none":
            if self.amount is not None:
                raise ValueError(f"amount={self.amount} needs a --compression")
            return gradient()
        return compressed(kind=self.compression, amount=self.amount)


def as_note(method: Method, setting: Setting, evaluate_every: int) -> dict[str, Any]:
    """Returns what a replay needs to know, as JSON."""
    fields = {"method": dataclasses.asdict(method), "setting": dataclasses.asdict(setting)}
    return json.loads(json.dumps(fields | {"evaluate_every": evaluate_every}))


def from_note(note: Mapping[str, Any]) -> tuple[Method, Setting, int]:
    """Returns the method, the setting and the commits between evaluations that a note tells of.

    Raises:
      LookupError: if something is missing.
      TypeError: if something is of the wrong kind.
      ValueError: if a value cannot be.

    Example:
      >>> from_note(as_note(Method(), Setting(), 50)) == (Method(), Setting(), 50)
      True
    """
    method, setting = dict(note["method"]), dict(note["setting"])
    digits_of, noise_of = dict(setting["digits"]), dict(setting["noise"])
    digits_of["hidden"] = tuple(digits_of["hidden"])
    arguments = method["arguments"]
    for text in (method["method"], *arguments, *arguments.values()):
        if not isinstance(text, str):
            raise TypeError(f"method and arguments must be text, got {text!r:.40}")
    for count in (*digits_of["hidden"], digits_of["batch_size"], note["evaluate_every"]):
        require_count("hidden, batch_size and evaluate_every", count)
    require_number("learning_rate", method["learning_rate"])
    for name in ("tail", "scale"):
        require_number(f"noise.{name}", noise_of[name])
    if setting["amount"] is not None:
        require_number("amount", setting["amount"])
    for kind, name, value in (
        (Noise, "model", noise_of["model"]),
        (Setting, "compression", setting["compression"]),
    ):
        require_choice(name, value, typing.get_args(typing.get_type_hints(kind)[name]))
    setting |= {"digits": DigitsProblem(**digits_of), "noise": Noise(**noise_of)}
    return Method(**method), Setting(**setting), note["evaluate_every"]
