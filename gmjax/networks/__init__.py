"""Networks: Flax modules `(x, t, cond, *, train) -> logits` for states of discrete sites.

`networks.continuous` has those for images and vectors of floats, `networks.field` the one for
features of a state on any space, and `cost` counts what a forward pass takes.

x [B, *S] int, K states a site (data values 0 .. V - 1, then the mask state where there is one);
t [B] float in (0, 1]; cond None or {"label": [B] int}; logits [B, *S, V] float32 over data values.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from gmjax.networks import heads, mlp, transformer, unet
from gmjax.networks.settings import PREFIX
from gmjax.types import DataSpec, PyTree, UserError, lookup

NETWORKS = {"mlp": mlp.build, "transformer": transformer.build, "unet": unet.build}

# The hyperparameters of each network, as `config.network` may hold them.
SETTINGS = {
    "mlp": {**mlp.SETTINGS, **heads.SETTINGS},
    "transformer": {**transformer.SETTINGS, **heads.SETTINGS},
    "unet": {**unet.SETTINGS, **heads.SETTINGS},
}


def build(config: Mapping[str, Any], spec: DataSpec, num_states: int) -> nn.Module:
    """The network named `config["name"]`, for data of `spec`.

    Args:
        config: the section `config.network`: a name in `NETWORKS` and its hyperparameters;
            those of the other networks do not count.
        spec: shape and values of the data.
        num_states: K, the data values and the mask where there is one.

    Returns:
        An unbound module.

    Raises:
        UserError: an unknown name or key, or a value that is not valid.
    """
    if "name" not in config:
        raise UserError(f"{PREFIX}.name is missing; valid: {', '.join(sorted(NETWORKS))}")
    make = lookup(NETWORKS, config["name"], f"{PREFIX}.name")
    # A preset may hold keys of a network that the command line has replaced.
    own = SETTINGS[config["name"]]
    others = {key for table in SETTINGS.values() for key in table} - set(own)
    return make({key: config[key] for key in config if key not in others}, spec, num_states)


def num_params(params: PyTree) -> int:
    """The number of scalars in a tree of parameters."""
    return sum(p.size for p in jax.tree.leaves(params))


class Cost(NamedTuple):
    """What a network takes."""

    parameters: int  # scalars
    flops: float  # floating-point operations of one forward pass, a multiply-add being two


def cost(apply: Callable[..., Any], params: PyTree, *args: Any) -> Cost:
    """Parameters, and operations of one forward pass as XLA counts them before optimisation.

    A loop counts once, whatever its length, and a kernel that XLA does not know, such as cuDNN's
    attention, counts nothing: give the network with `attention_by="plain"`, which is as much work.

    Args:
        apply: (params, *args) -> output.
        params: its parameters, or their shapes as of `jax.eval_shape`; nothing runs.
        args: arrays or shapes, which fix the size of the batch.

    Returns:
        `Cost`; flops for the whole batch.
    """
    analysis = jax.jit(apply).lower(params, *args).cost_analysis() or {}
    return Cost(num_params(params), float(analysis.get("flops", 0.0)))
