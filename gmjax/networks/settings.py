"""Hyperparameters of a network: a table of `Setting` rows, read from a mapping and checked once."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gmjax.types import UserError

PREFIX = "config.network"


class Setting(NamedTuple):
    """One hyperparameter: its default, what is valid in words, and the check itself."""

    default: Any
    valid: str
    accepts: Callable[[Any], bool]


def _whole(v: Any) -> bool:
    return isinstance(v, (int, np.integer)) and not isinstance(v, bool)


def _real(v: Any) -> bool:
    return _whole(v) or isinstance(v, (float, np.floating))


def size(default: int) -> Setting:
    """A width, depth or count."""
    return Setting(default, "a positive integer", lambda v: _whole(v) and v > 0)


def sizes(default: tuple[int, ...]) -> Setting:
    """A sequence of widths, one a level."""
    ok = lambda v: (
        isinstance(v, (tuple, list)) and len(v) > 0 and all(_whole(i) and i > 0 for i in v)
    )
    return Setting(default, "a sequence of positive integers", ok)


def length(default: float) -> Setting:
    """A width in data units; 0 switches it off."""
    return Setting(default, "a number that is 0 or more", lambda v: _real(v) and 0 <= v < np.inf)


def share(default: float) -> Setting:
    """A probability below one."""
    return Setting(default, "a number in [0, 1)", lambda v: _real(v) and 0 <= v < 1)


def flag(default: bool) -> Setting:
    """True or False."""
    return Setting(default, "True or False", lambda v: isinstance(v, bool))


def choice(default: str, names: Iterable[str]) -> Setting:
    """One name of a table."""
    valid = sorted(names)
    return Setting(default, ", ".join(valid), lambda v: v in valid)


def require(ok: bool, key: str, value: Any, why: str) -> None:
    """Raise the `UserError` of `key` unless `ok`: for checks that involve more than one value."""
    if not ok:
        raise UserError(f"{PREFIX}.{key}={value!r} is not valid: {why}")


def read(config: Mapping[str, Any], table: Mapping[str, Setting]) -> dict[str, Any]:
    """The hyperparameters of `table`, each from `config` where it has one.

    Args:
        config: the section `config.network`; its key `name` is not a hyperparameter, and the
            value None stands for the default.
        table: the network's hyperparameters.

    Returns:
        {key: value} for every key of `table`, sequences as tuples.

    Raises:
        UserError: a key that is not in `table`, or a value that its row does not accept.
    """
    given = {k: config[k] for k in config if k != "name" and config[k] is not None}
    for key, value in given.items():
        if key not in table:
            raise UserError(f"{PREFIX}.{key}={value!r} is unknown; valid: {', '.join(table)}")
        require(table[key].accepts(value), key, value, f"give {table[key].valid}")
    values = {key: given.get(key, row.default) for key, row in table.items()}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
