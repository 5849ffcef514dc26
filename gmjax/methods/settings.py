"""Values of a configuration, checked once where a method is built."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from gmjax.samplers import guidance
from gmjax.types import DataSpec, Predict, PyTree, UserError

Config = Any


def accumulation(config: Config) -> int:
    """`config.train.accumulate`, checked against the batch."""
    parts, size = config.train.accumulate, config.train.batch_size
    if parts < 1 or size % parts:
        raise UserError(
            f"config.train.accumulate={parts} must be a positive divisor of"
            f" config.train.batch_size={size}"
        )
    return parts


def call(make: Callable, kwargs: dict[str, Any], key: str) -> Any:
    """make(**kwargs) of the keys that it takes, those of other choices left out.

    Raises:
        UserError: a key that it needs is missing.
    """
    signature = inspect.signature(make)
    own = {k: v for k, v in kwargs.items() if k in signature.parameters}
    try:
        signature.bind(**own)
    except TypeError as error:
        raise UserError(f"{key}: {error}; it takes {', '.join(signature.parameters)}") from None
    return make(**own)


def labelled(config: Config, spec: DataSpec) -> bool:
    """`config.labels`: is the model conditioned on the class?

    Raises:
        UserError: the data have none, guidance asks for what is not learned, or the share of
            dropped labels is none.
    """
    drop = config.loss.get("label_dropout", 0.0)
    if not 0 <= drop <= 1:
        raise UserError(f"config.loss.label_dropout={drop} must lie in [0, 1]")
    if config.labels and not spec.num_classes:
        raise UserError(f"config.labels=True: data set {config.data.name!r} has no labels")
    scale = config.sample.guidance
    if scale != 1.0 and not config.labels:
        raise UserError(f"config.sample.guidance={scale} needs labels: set config.labels=True")
    if not math.isfinite(scale):
        raise UserError(f"config.sample.guidance={scale}; valid: a number")
    if scale != 1.0 and not drop:
        raise UserError(
            f"config.sample.guidance={scale} needs a network that was trained without labels too:"
            " train with config.loss.label_dropout in (0, 1), such as 0.1"
        )
    return bool(config.labels)


def guided(
    config: Config, spec: DataSpec, logits: PyTree = False
) -> Callable[[Predict], tuple[Predict, int]]:
    """Guidance by labels as `config.sample.{guidance, interval, rescale}` ask.

    Args:
        logits: see `guidance.classifier_free`.

    Returns:
        predict -> (what guides it, evaluations that a call counts for).

    Raises:
        UserError: what `labelled` and `guidance.check` say.
    """
    c = config.sample
    guidance.check(tuple(c.interval), c.rescale)
    if not labelled(config, spec) or c.guidance == 1.0:
        return lambda predict: (predict, 1)
    options = (c.guidance, spec.num_classes, tuple(c.interval), c.rescale, logits)
    return lambda predict: (guidance.classifier_free(predict, *options), 2)


def condition(batch: Mapping[str, Any], labels: bool, *names: str) -> dict[str, Any]:
    """What the network and the loss are told of a batch besides x: `names` and the label."""
    wanted = ("label", *names) if labels else names
    return {name: batch[name] for name in wanted if name in batch}


def inside(value: float, key: str) -> float:
    """`value`, which must lie in (0, 1)."""
    if not 0 < value < 1:
        raise UserError(f"{key}={value} must lie in (0, 1)")
    return value


def weight(value: float, key: str) -> float:
    """`value`, the weight of a part of a loss: finite and not negative."""
    if not 0 <= value < math.inf:
        raise UserError(f"{key}={value} must not be negative; valid: 0 (without it) or more")
    return value


def positive(section: Config, key: str) -> int:
    """The entry of `section` that `key` ends with, which must be at least 1."""
    value = section[key.split(".")[-1]]
    if value < 1:
        raise UserError(f"config.{key}={value} must be at least 1")
    return value
