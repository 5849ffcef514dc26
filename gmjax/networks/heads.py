r"""From features to the log-probabilities of V values a site.

`logits`: V numbers a site; with a smoothing width each is the Gaussian-weighted mean of its
neighbours, z = M z_raw. M is folded into the last layer's weights (M (W h + b) = (M W) h + M b),
so it costs nothing a site.

`logistic`: two numbers a site, the mean m and the log-scale log s of a logistic law truncated to
the range of the levels. Level k is the bin [l_k, r_k] of width w = 2 / (V - 1) around its scaled
value in [-1, 1]; with a = (l_k - m) / s, b = (r_k - m) / s and the logistic function S,

    S(b) - S(a) = S(b) S(-a) (1 - e^(a - b)),

where every factor is positive and nothing cancels. b - a = w / s is the same in every bin, so
its factor drops out when the bins are normalised, which is the truncation:

    log p_k = log S(b_k) + log S(-a_k) - logsumexp over the bins.

No difference of nearly equal numbers is left, in the value or in the gradient. As in Campbell et
al. (2022) the mean is relative to the input: m = u(x) + output, u the scaled level.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gmjax.networks import embeddings, settings
from gmjax.types import Array, DataSpec

LOG_SCALE_BOUND = 8.0


def truncated_logistic(mean: Array, log_scale: Array, num_values: int) -> Array:
    """Log-probabilities of the discretised logistic law truncated to the V levels.

    Args:
        mean: [...] in units of the scaled levels, which span [-1, 1]; may lie outside.
        log_scale: [...] log of the logistic scale in the same units; bounded smoothly to
            (-8, 8), a scale finer than any bin and one wider than any range.
        num_values: V, 2 or more.

    Returns:
        [..., V] float32 log-probabilities.
    """
    half = 1.0 / max(num_values - 1, 1)
    levels = np.linspace(-1, 1, num_values, dtype=np.float32)
    bounded = LOG_SCALE_BOUND * jnp.tanh(log_scale.astype(jnp.float32) / LOG_SCALE_BOUND)
    gap = levels - mean.astype(jnp.float32)[..., None]
    precision = jnp.exp(-bounded)[..., None]
    log_bin = nn.log_sigmoid((gap + half) * precision) + nn.log_sigmoid((half - gap) * precision)
    return nn.log_softmax(log_bin)


class Head(NamedTuple):
    """How many numbers a site the network puts out, and what becomes of them."""

    channels: Callable[[int], int]  # V -> c
    fold: Callable[..., Array]  # (weights [..., c], M [V, V]) -> smoothed weights [..., c]
    logits: Callable[..., Array]  # (raw [..., c], x [...], V) -> [..., V]


HEADS = {
    "logits": Head(
        channels=lambda v: v,
        fold=lambda weights, m: weights @ m.T,
        logits=lambda raw, x, v: raw,
    ),
    "logistic": Head(
        channels=lambda v: 2,
        fold=lambda weights, m: weights,
        logits=lambda raw, x, v: truncated_logistic(
            embeddings.scaled_levels(x, v) + raw[..., 0], raw[..., 1], v
        ),
    ),
}


class Readout(nn.Module):
    """The last layer of every network: one vector to the logits of the sites it speaks for.

    Its weights start at zero: uniform logits, or a logistic law of scale 1 around the input.

    Args:
        num_values: V.
        head: a name in `HEADS`.
        smoothing: width of the Gaussian over levels, in levels; 0 for none.
        dtype: of the matrix product, which accumulates in float32.
    """

    num_values: int
    head: str = "logits"
    smoothing: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: Array, x: Array) -> Array:
        """h [*N, C] features, x [*N, P] int, the states of P sites -> [*N, P, V] float32."""
        head = HEADS[self.head]
        shape = (x.shape[-1], head.channels(self.num_values))
        zeros = nn.initializers.zeros
        kernel = self.param("kernel", zeros, (h.shape[-1], *shape), jnp.float32)
        bias = self.param("bias", zeros, shape, jnp.float32)
        if self.smoothing:
            m = embeddings.smoothing_matrix(self.num_values, self.smoothing)
            kernel, bias = head.fold(kernel, m), head.fold(bias, m)
        raw = jax.lax.dot(
            h.reshape(-1, h.shape[-1]).astype(self.dtype),
            kernel.reshape(h.shape[-1], -1).astype(self.dtype),
            preferred_element_type=jnp.float32,
        )
        raw = raw.reshape(*x.shape, -1) + bias
        return head.logits(raw, x, self.num_values)


OFF = {"head": "logits", "smoothing": 0.0}  # what needs no order
SETTINGS = {
    "head": settings.choice("logits", HEADS),
    "smoothing": settings.length(0.0),
    "dtype": settings.choice("float32", ("float32", "bfloat16")),
}


def read(
    config: Mapping[str, Any], table: Mapping[str, settings.Setting], spec: DataSpec
) -> dict[str, Any]:
    """The hyperparameters of a network that ends in a `Readout`.

    Args:
        config: the section `config.network`.
        table: the network's own hyperparameters.
        spec: of the data.

    Returns:
        {key: value} for the keys of `table` and of `SETTINGS`.

    Raises:
        UserError: an unknown key, a value that is not valid, or one that needs ordinal data.
    """
    values = settings.read(config, {**table, **SETTINGS})
    needs_order = {"head": values["head"] == "logistic", "smoothing": values["smoothing"] > 0}
    for key, needs in needs_order.items():
        cure = (
            f"values in no order do not have it; valid: config.network.{key}={OFF[key]}, or, where"
            " neighbouring values mean nearly the same, config.data.ordinal=True"
        )
        settings.require(spec.ordinal or not needs, key, values[key], cure)
    return values
