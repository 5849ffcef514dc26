"""Sections of a configuration in which every key that some choice reads exists.

A ConfigDict is locked, so that a misspelt key is an error; a key that the present choice does
not set is a placeholder (None, "take the default"), and the command line may set it.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from gmjax import data, networks
from gmjax.networks import continuous
from gmjax.paths import gaussian
from gmjax.samplers import gaussian as solvers


def section(keys: Mapping[str, Any], **values: Any) -> ConfigDict:
    """Placeholders of the types of `keys`, with `values` set.

    Args:
        keys: name -> an example value, of which only the type counts.
        values: what is set.
    """
    empty = {key: config_dict.placeholder(type(value)) for key, value in keys.items()}
    return ConfigDict({**empty, **values})


def dataset(name: str, **values: Any) -> ConfigDict:
    """`config.data`: the set `name`; every key of every set may be given."""
    keys = {key: value for own in data.DEFAULTS.values() for key, value in own.items()}
    return section({**keys, "dir": ""}, name=name, dir="", **values)


def network(name: str, **values: Any) -> ConfigDict:
    """`config.network`: the network `name`, of discrete or continuous states, set by `values`."""
    tables = (networks.SETTINGS, continuous.SETTINGS)
    keys = {k: row.default for t in tables for own in t.values() for k, row in own.items()}
    return section(keys, name=name, **values)


def path(name: str, **values: Any) -> ConfigDict:
    """`config.path`: the Gaussian path `name`."""
    keys = {key: value for own in gaussian.KEYS.values() for key, value in own.items()}
    return section(keys, name=name, **values)


def solver(name: str, **values: Any) -> ConfigDict:
    """`config.sample` of a Gaussian path: the solver `name`, its grid, and what either reads."""
    keys = {key: value for own in solvers.KEYS.values() for key, value in own.items()}
    rest = {"clip": 1.0, "corrector_steps": 0, "snr": 0.16, "rtol": 1e-4, "power": 7.0}
    return section({**keys, **rest, "spacing": ""}, name=name, **values)


def process(name: str, schedule: ConfigDict, **values: Any) -> ConfigDict:
    """`config.process`: the chain `name` on the clock `schedule`."""
    keys = {
        "sigma0": 1.0,
        "sigma_rate": 1.0,
        "matrix": "",
        "data_variance": 1.0,
        "speeds": (1.0,),
        "alpha": (1.0,),
        "chain": "",
        **dict.fromkeys(
            ("speed", "mean", "sigma", "dimension", "arrival", "death", "mass", "gamma"), 1.0
        ),
        "cap": 1,
    }
    return section(keys, name=name, schedule=schedule, **values)


def schedule(name: str, **values: Any) -> ConfigDict:
    """`config.process.schedule`: the clock `name`."""
    keys = dict.fromkeys(("rate", "start", "end", "alpha_min", "a", "b"), 1.0)
    return section(keys, name=name, **values)
