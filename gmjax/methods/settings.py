"""Values of a configuration, checked once where a method is built."""

from collections.abc import Callable, Mapping
from typing import Any

from gmjax.types import DataSpec, UserError

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
    """make(**kwargs), with an unknown or missing key named."""
    try:
        return make(**kwargs)
    except TypeError as error:
        raise UserError(f"{key}: {str(error).split(') ')[-1].split('() ')[-1]}") from None


def labelled(config: Config, spec: DataSpec) -> bool:
    """`config.labels`: is the model conditioned on the class?

    Raises:
        UserError: the data have none, or guidance asks for what is not learned.
    """
    if config.labels and not spec.num_classes:
        raise UserError(f"config.labels=True: data set {config.data.name!r} has no labels")
    scale = config.sample.guidance
    if scale != 1.0 and not config.labels:
        raise UserError(f"config.sample.guidance={scale} needs labels: set config.labels=True")
    return bool(config.labels)


def condition(batch: Mapping[str, Any], labels: bool, *names: str) -> dict[str, Any]:
    """What the network and the loss are told of a batch besides x: `names` and the label."""
    wanted = ("label", *names) if labels else names
    return {name: batch[name] for name in wanted if name in batch}


def inside(value: float, key: str) -> float:
    """`value`, which must lie in (0, 1)."""
    if not 0 < value < 1:
        raise UserError(f"{key}={value} must lie in (0, 1)")
    return value


def positive(section: Config, key: str) -> int:
    """The entry of `section` that `key` ends with, which must be at least 1."""
    value = section[key.split(".")[-1]]
    if value < 1:
        raise UserError(f"config.{key}={value} must be at least 1")
    return value
