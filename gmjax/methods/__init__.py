"""Methods: `METHODS[config.method](config, spec)` gives the four functions that a job needs."""

from collections.abc import Callable
from typing import Any

from gmjax.methods import (
    classical,
    discrete_diffusion,
    flow_matching,
    gaussian_diffusion,
    markov_diffusion,
    vae,
)
from gmjax.types import DataSpec, Method, lookup

METHODS: dict[str, Callable[..., Method]] = {
    "classical": classical.build,
    "discrete_diffusion": discrete_diffusion.build,
    "flow_matching": flow_matching.build,
    "gaussian_diffusion": gaussian_diffusion.build,
    "markov_diffusion": markov_diffusion.build,
    "vae": vae.build,
}


def build(config: Any, spec: DataSpec) -> Method:
    """The method named `config.method`.

    Raises:
        UserError: an unknown name, or a value that the method refuses.
    """
    return lookup(METHODS, config.method, "config.method")(config, spec)
