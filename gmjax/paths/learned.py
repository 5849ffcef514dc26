"""A learned noise schedule: a monotone log-SNR with parameters (Kingma et al. 2021, section 4).

    log_snr(t) = high - fall m(t),    m(t) = (u(t) - u(0)) / (u(1) - u(0)),
    u(t) = t + sum_k softplus(w_k) sigmoid(softplus(a_k) (t - c_k)),
    fall = high - low, from one on;  e^{high - low - 1}, below it,

which falls whatever the parameters, from `high` to `low` where they are one apart or more. In
continuous time the bound depends on the ends alone, so they follow the bound's gradient, and the
shape of m in between follows that of the variance of its estimate, E L^2
(`losses.gaussian.learned_path`).
"""

import jax
import jax.numpy as jnp

from gmjax.paths.gaussian import GaussianPath, from_log_snr
from gmjax.types import Array, Key, PyTree, UserError


def init(key: Key, high: float = 13.3, low: float = -5.0, units: int = 32) -> PyTree:
    """Parameters near a straight line from `high` to `low`.

    Args:
        key: a PRNG key.
        high, low: log-SNR at t = 0 and t = 1 at the start.
        units: K.
    """
    return {
        "ends": jnp.asarray([high, low], float),
        "shape": {
            "weight": jnp.full(units, -3.0, float),
            "slope": jnp.full(units, 5.0, float),
            "centre": jax.random.uniform(key, (units,)),
        },
    }


def check(high: float = 13.3, low: float = -5.0) -> None:
    """Raises `UserError` unless the log-SNR falls."""
    if not high > low:
        raise UserError(f"config.path.high={high} must exceed config.path.low={low}")


def learned(params: PyTree) -> GaussianPath:
    """The variance-preserving path of the parameters of `init`."""
    high, low = params["ends"]
    gap = high - low
    fall = jnp.where(gap > 1, gap, jnp.exp(jnp.where(gap > 1, 0, gap - 1)))
    shape = jax.tree.map(jnp.asarray, params["shape"])
    weight, slope = jax.nn.softplus(shape["weight"]), jax.nn.softplus(shape["slope"])

    def u(t):
        bumps = jax.nn.sigmoid(slope * (t[..., None] - shape["centre"]))
        return t + jnp.sum(weight * bumps, -1)

    first, last = u(jnp.zeros(())), u(jnp.ones(()))

    def snr(t):
        return high - fall * (u(t) - first) / (last - first)

    def inverse(value: Array) -> Array:
        def halve(_, ends):
            a, b = ends
            middle = 0.5 * (a + b)
            above = snr(middle) > value  # log-SNR falls: then the root is later
            return jnp.where(above, middle, a), jnp.where(above, b, middle)

        value = jnp.asarray(value)
        a, b = jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(value), jnp.ones_like(value)))
        return 0.5 * (a + b)

    return from_log_snr(snr, inverse)
