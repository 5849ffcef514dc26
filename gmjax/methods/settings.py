"""Values of a configuration, checked once where a method is built."""

from collections.abc import Callable
from typing import Any

from gmjax.types import UserError

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
