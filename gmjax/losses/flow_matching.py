"""Flow matching: regression on what a conditional path knows about its own motion.

With (x0, x1) paired by a coupling, t drawn and x_t on the path between them,

    E gap(network(x_t, t), target(x0, x1, x_t, t))

has the gradient of the same loss against the marginal velocity (or, on finite sets, the
posterior): the conditional mean of the target given x_t is what the marginals move with, because
the continuity equation is linear. Source: Lipman et al. (2023), theorem 2; Gat et al. (2024).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax.losses.times import cell, stratified
from gmjax.paths import mixture
from gmjax.paths.conditional import Path
from gmjax.paths.couplings import Coupling, independent
from gmjax.processes.observed import batch_size
from gmjax.types import Array, Cond, Key, Loss, Predict, PyTree, UserError

Times = Callable[..., Array]  # (key, n, part=None) -> t [n]; part as of `times.TimeSampler`


def uniform(t_min: float, t_max: float, spread: Callable = stratified) -> Times:
    """t uniform on [t_min, t_max]."""
    return lambda key, n, part=None: t_min + (t_max - t_min) * cell(spread(key, n), part)


def logit_normal(t_min: float, t_max: float, spread: Callable = stratified) -> Times:
    """logit of the place in [t_min, t_max] ~ N(0, 1): the middle more often (Esser et al. 2024)."""

    def draw(key, n, part=None):
        z = jax.scipy.special.ndtri(jnp.clip(cell(spread(key, n), part), 1e-6, 1 - 1e-6))
        return t_min + (t_max - t_min) * jax.nn.sigmoid(z)

    return draw


TIMES: dict[str, Callable[..., Times]] = {"uniform": uniform, "logit_normal": logit_normal}


def matching(path: Path, times: Times, couple: Coupling = independent) -> Loss:
    """The flow matching loss of a path, one network evaluation an example.

    Args:
        path: between data and source.
        times: the time sampler.
        couple: how the two are paired.

    Returns:
        A loss (predict, key, x0 [B, *S], cond, part=None) -> ([B], {}). cond["source"], like x0,
        gives the other end; without it the path's base does.
    """

    def loss(predict: Predict, key: Key, x0: PyTree, cond: Cond, part=None):
        key_pair, key_t, key_x = jax.random.split(key, 3)
        x1 = pair(path, key_pair, x0, cond, couple)
        n = batch_size(x0)
        t = times(key_t, n, part)
        x, target = jax.vmap(path.draw)(jax.random.split(key_x, n), x0, x1, t)
        return jax.vmap(path.gap)(predict(x, t, cond), x, t, target), {}

    return loss


def pair(path: Path, key: Key, x0: PyTree, cond: Cond, couple: Coupling) -> PyTree:
    """The other ends x1 [B, *S] of the data x0, coupled."""
    key_source, key_couple = jax.random.split(key)
    if cond is not None and "source" in cond:
        x1 = cond["source"]
    else:
        x1 = jax.vmap(path.base.sample)(jax.random.split(key_source, batch_size(x0)))
    order = couple(key_couple, x0, x1)
    if order.shape != (batch_size(x0),):
        raise UserError(
            f"config.coupling.name: the coupling gave shape {order.shape}; valid: one row number"
            f" of x1 for each of the {batch_size(x0)} rows of x0"
        )
    return jax.tree.map(lambda a: a[order], x1)


def bound(
    m: mixture.Mixture, shape: tuple[int, ...], t_min: float, num_times: int = 16
) -> Callable[[Predict, Key, Array, Cond], dict[str, Array]]:
    """The negative bound on log p(x0) of a discrete flow, for an independent source.

    The source's law is exact at t = 1, so that jumps and the last draw at t_min are all.

    Args:
        m: the mixture path.
        shape: [*S].
        t_min: where the jumps end, and every site is drawn from the posterior.
        num_times: network evaluations an example.

    Returns:
        (predict, key, x0 [B, *S], cond) -> {"nats", "jumps", "reconstruction"}: [B], nats
        a site; the first is the sum of the others.
    """
    way = mixture.path(m, shape)
    axes = tuple(range(1, len(shape) + 1))
    nats = {
        "jumps": lambda *a: (1 - t_min) * mixture.bound(m, *a),
        "reconstruction": lambda *a: mixture.nats(m, *a),
    }

    def run(predict: Predict, key: Key, x0: Array, cond: Cond) -> dict[str, Array]:
        n = len(x0)

        def once(inputs):
            key, j = inputs
            key_t, key_x, key_1 = jax.random.split(key, 3)
            x1 = jax.vmap(way.base.sample)(jax.random.split(key_1, n))
            at = {
                "jumps": t_min + (1 - t_min) * cell(stratified(key_t, n), (j, num_times)),
                "reconstruction": jnp.full(n, t_min),
            }

            def part(name, t):
                x, _ = jax.vmap(way.draw)(jax.random.split(key_x, n), x0, x1, t)
                values = jax.vmap(nats[name])(predict(x, t, cond), x, t, x0)
                return jnp.mean(values, axes)

            return {name: part(name, t) for name, t in at.items()}

        parts = jax.lax.map(once, (jax.random.split(key, num_times), jnp.arange(num_times)))
        jumps, last = (jnp.mean(parts[name], 0) for name in ("jumps", "reconstruction"))
        return {"nats": jumps + last, "jumps": jumps, "reconstruction": last}

    return run
