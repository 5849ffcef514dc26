"""MeanFlow: the average velocity between two times, learned without simulation.

Along a trajectory of the flow dx/dt = v the displacement from r to t is (t - r) u, and

    u(x_t, r, t) = (1 / (t - r)) int_r^t v(x_s, s) ds    <=>    u = v - (t - r) du/dt,
    du/dt = v . grad_x u + du/dt at fixed x and r:       a forward derivative along (v, 0, 1).

At r = t it is the velocity itself. The loss regresses u on the right-hand side with the
conditional velocity for v, no gradient passing through it. One step x_0 = x_1 - u(x_1, 0, 1) then
samples. `adaptive` divides the squared error by a power of itself, held constant, which tames its
heavy tail. Source: Geng et al. (2025), equations 6 to 10.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax.losses.flow_matching import Times, pair
from gmjax.paths.conditional import Path
from gmjax.paths.couplings import Coupling, independent
from gmjax.types import Array, Cond, Key, Loss, Predict, UserError

# (x [B, *S], t [B], cond with "until" [B], the time r) -> u
Average = Predict


def mean_flow(
    path: Path,
    times: Times,
    couple: Coupling = independent,
    share: float = 0.25,
    power: float = 1.0,
) -> Loss:
    """The MeanFlow loss of an interpolant, a network evaluation and a forward derivative.

    Args:
        path: on R^d, its output the velocity.
        times: draws both times.
        couple: how data and source are paired.
        share: of the examples whose two times differ.
        power: p of the adaptive weight 1 / (|error|^2 + 1e-3)^p; 0: none.

    Returns:
        A loss (average, key, x0 [B, *S], cond) -> ([B], {"error": [B]}), the second without
        the weight. `average` reads the time r from cond["until"] [B].

    Raises:
        UserError: a share outside [0, 1], or a negative power.
    """
    if not 0 <= share <= 1:
        raise UserError(f"config.loss.share={share} must lie in [0, 1]")
    if power < 0:
        raise UserError(f"config.loss.power={power} must not be negative")

    def loss(average: Average, key: Key, x0: Array, cond: Cond):
        key_pair, key_t, key_r, key_mix, key_apart, key_x = jax.random.split(key, 6)
        n = len(x0)
        x1 = pair(path, key_pair, x0, cond, couple)
        first = times(key_t, n)
        # Stratified times are ordered, and two such would go hand in hand.
        second = jax.random.permutation(key_mix, times(key_r, n))
        t = jnp.maximum(first, second)
        key_count, key_apart = jax.random.split(key_apart)
        count = jnp.floor(share * n + jax.random.uniform(key_count))  # `share` on average
        apart = jax.random.permutation(key_apart, jnp.arange(n) < count)
        r = jnp.where(apart, jnp.minimum(first, second), t)
        x, v = jax.vmap(path.draw)(jax.random.split(key_x, n), x0, x1, t)
        u, target = regression(average, x, v, r, t, cond)
        error = jnp.mean((u - target) ** 2, tuple(range(1, x.ndim)))
        weight = jax.lax.stop_gradient(error + 1e-3) ** -power
        return weight * error, {"error": error}

    return loss


def regression(
    average: Average, x: Array, v: Array, r: Array, t: Array, cond: Cond = None
) -> tuple[Array, Array]:
    """u(x, r, t) and what it is regressed on, v - (t - r) du/dt: [B, *S] each.

    Args:
        average: the network.
        x, v: [B, *S] states and velocities there.
        r, t: [B], r <= t.
        cond: passed on.
    """
    of: Callable = lambda x, r, t: average(x, t, {**(cond or {}), "until": r})
    u, slope = jax.jvp(of, (x, r, t), (v, jnp.zeros_like(r), jnp.ones_like(t)))
    span = (t - r).reshape(t.shape + (1,) * (x.ndim - 1))
    return u, jax.lax.stop_gradient(v - span * slope)
