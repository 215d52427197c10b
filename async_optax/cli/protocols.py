"""Protocols from text such as ``buffered:8:wait``."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from async_optax.timelines import protocols


@dataclasses.dataclass(frozen=True)
class Form:
    """How a protocol is written: its name, numbers in this order, and words anywhere.

    Attributes:
      factory: makes it.
      usage: for the reader.
      numbers: parameters that numbers set, with their types.
      num_required: how many of them must be given.
      words: what each word sets.
    """

    factory: Callable[..., protocols.Protocol]
    usage: str
    numbers: Mapping[str, type] = dataclasses.field(default_factory=dict)
    num_required: int = 0
    words: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


FORMS = {
    "synchronous": Form(protocols.synchronous, "synchronous[:BACKUP]", {"backup": int}),
    "asynchronous": Form(
        protocols.asynchronous,
        "asynchronous[:uniform|shuffled[:N]]",
        {"concurrency": int},
        words={name: {"assignment": name} for name in ("uniform", "shuffled")},
    ),
    "buffered": Form(
        protocols.buffered, "buffered:SIZE[:wait]", {"size": int}, 1, {"wait": {"wait": True}}
    ),
    "softsync": Form(protocols.softsync, "softsync:SPLITS", {"splits": int}, 1),
    "bounded_staleness": Form(
        protocols.bounded_staleness, "bounded_staleness:BOUND", {"bound": int}, 1
    ),
    "rennala": Form(
        protocols.rennala,
        "rennala:BATCH[:nostop]",
        {"batch_size": int},
        1,
        {"nostop": {"stop": False}},
    ),
    "ringmaster": Form(
        protocols.ringmaster,
        "ringmaster:STALENESS[:stop]",
        {"max_staleness": int},
        1,
        {"stop": {"stop": True}},
    ),
    "mindflayer": Form(
        protocols.mindflayer,
        "mindflayer:TIME[:BATCH]",
        {"time_limit": float, "batch_size": int},
        1,
    ),
    "token_control": Form(
        protocols.token_control,
        "token_control:BATCH[:TOLERANCE]",
        {"global_batch": int, "tolerance": int},
        1,
    ),
    "round_robin": Form(protocols.round_robin, "round_robin"),
}
_BUFFERED_WAIT = "buffered_wait"


def parse_protocol(text: str, buffer_size: int | None = None) -> protocols.Protocol:
    """Makes a protocol from its string form.

    Args:
      text: one of :data:`FORMS`; or ``buffered`` and ``buffered_wait`` alone, with a
        ``buffer_size``.
      buffer_size: for those two, or ``None`` if the text must say it.

    Returns:
      The protocol.

    Raises:
      ValueError: if the name is unknown, or the arguments are none that it takes.

    Example:
      >>> parse_protocol("buffered:8:wait").name
      'buffered(8, wait=True)'
      >>> parse_protocol("rennala:nonstop")
      Traceback (most recent call last):
      ...
      ValueError: protocol 'rennala:nonstop': 'nonstop' is not an integer (or nostop); the form is
      rennala:BATCH[:nostop]
    """
    if buffer_size is not None and text in ("buffered", _BUFFERED_WAIT):
        return protocols.buffered(buffer_size, wait=text == _BUFFERED_WAIT)
    name, *arguments = text.split(":")
    if name not in FORMS:
        names = [*FORMS, *([_BUFFERED_WAIT] if buffer_size is not None else [])]
        near = [known for known in names if name and known.startswith(name)]
        near = near or difflib.get_close_matches(name, names, cutoff=0.4) or names
        if name == "switching":
            raise ValueError("switching has no form in text: use protocols.switching in Python")
        forms = ", ".join(FORMS[known].usage if known in FORMS else known for known in near)
        raise ValueError(f"unknown protocol {name!r}; nearest: {forms}")
    form = FORMS[name]
    given: dict[str, Any] = {}
    unset = list(form.numbers.items())
    try:
        for argument in arguments:
            if argument in form.words:
                given |= form.words[argument]
            elif unset:
                parameter, kind = unset.pop(0)
                given[parameter] = _number(argument, kind, form)
            else:
                raise ValueError(f"{argument!r} is one too many; the form is {form.usage}")
        if len(form.numbers) - len(unset) < form.num_required:
            raise ValueError(f"{unset[0][0]} is missing; the form is {form.usage}")
        return form.factory(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"protocol {text!r}: {error}") from error


def _number(text: str, kind: type, form: Form) -> Any:
    try:
        return kind(text)
    except ValueError:
        wanted = "an integer" if kind is int else "a number"
        words = f" (or {' or '.join(form.words)})" if form.words else ""
        raise ValueError(f"{text!r} is not {wanted}{words}; the form is {form.usage}") from None
