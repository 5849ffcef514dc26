"""Steppers of a flow that was learned by matching, from t = 1 to t = 0.

    euler      dx/dt = v along geodesics; on finite sets sites are drawn anew with their hazard
    midpoint   the same by the midpoint rule, two evaluations; on finite sets two half steps
    sde        dX = (v + c eta) dt + sqrt(2 c gamma) dB, the same marginals with noise
    mean       x_s = x_t - (t - s) u(x_t, s, t), the average velocity of MeanFlow
    corrected  on finite sets: Euler, then leaps of the backward and forward rates together,
               which leave the marginals as they are

and `exact`, simulation of a mixture path's jumps without any step size: from t on, the first of D
hidden sites turns at the time s with h(s) = h(t) U^(1/D), whichever with equal chance, and its
value is drawn from the posterior there. A masked site turns once: D evaluations, and no error
but the network's (Zheng et al. 2025, first hitting).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax import draws
from gmjax.paths import mixture
from gmjax.paths.conditional import Path
from gmjax.paths.mixture import Mixture
from gmjax.samplers.driver import count_steps
from gmjax.types import Array, Cond, Key, Predict, Stepper, UserError


def euler(path: Path) -> Stepper:
    """Euler's rule; one evaluation a step."""

    def step(predict, key, x, t, t_next, carry, cond):
        keys = jax.random.split(key, len(t))
        return jax.vmap(path.step)(keys, predict(x, t, cond), x, t, t_next), carry

    return Stepper(lambda x: (), step, count_steps)


def midpoint(path: Path) -> Stepper:
    """The midpoint rule; two evaluations a step."""

    def step(predict, key, x, t, t_next, carry, cond):
        first, second = jax.random.split(key)
        half = 0.5 * (t + t_next)
        keys = jax.random.split(first, len(t))
        middle = jax.vmap(path.step)(keys, predict(x, t, cond), x, t, half)
        keys = jax.random.split(second, len(t))
        out = predict(middle, half, cond)
        return jax.vmap(path.midpoint)(keys, out, x, middle, t, half, t_next), carry

    return Stepper(lambda x: (), step, lambda times: 2 * (len(times) - 1))


def sde(path: Path, noise: float = 1.0) -> Stepper:
    """Euler-Maruyama for the flow with noise of size c; one evaluation a step.

    Args:
        path: with a denoiser.
        noise: c >= 0; 0 is the flow itself.

    Raises:
        UserError: no denoiser, or a negative size.
    """
    if noise < 0:
        raise UserError(f"config.sample.noise={noise} must not be negative")
    walk = path.walk
    if walk is None:
        raise UserError(
            "config.sample.name='sde' needs E[Z | x]: config.coupling.name='independent' from"
            " noise on a path without gamma, or config.loss.head='parts'; valid otherwise: euler,"
            " midpoint"
        )

    def step(predict, key, x, t, t_next, carry, cond):
        keys = jax.random.split(key, len(t))
        out = predict(x, t, cond)
        size = jnp.full(t.shape, noise)
        return jax.vmap(walk)(keys, out, x, t, t_next, size), carry

    return Stepper(lambda x: (), step, count_steps)


def mean(path: Path) -> Stepper:
    """Steps of the average velocity; one evaluation a step, and one step may do."""
    del path

    def step(average, key, x, t, t_next, carry, cond):
        u = average(x, t, {**(cond or {}), "until": t_next})
        return x - (t - t_next).reshape(t.shape + (1,) * (x.ndim - 1)) * u, carry

    return Stepper(lambda x: (), step, count_steps)


def corrected(path: Path, m: Mixture, steps: int = 1, size: float = 1.0) -> Stepper:
    """Euler's rule and corrector leaps with backward and forward rates at the new time.

    Args:
        path: of the mixture.
        m: the mixture, its source independent of the data.
        steps: leaps a step.
        size: length of one, in units of the predictor's step.

    Raises:
        UserError: no leap, or one of no length.

    Source: Gat et al. (2024), section 3.3; Campbell et al. (2022), proposition 4.
    """
    if steps < 1:
        raise UserError(f"config.sample.corrector.steps={steps} must be at least 1")
    if not size > 0:
        raise UserError(f"config.sample.corrector.size={size} must exceed 0")
    predictor = euler(path)
    masked = m.num_states > m.num_values
    if masked:
        source = jnp.zeros(m.num_states).at[-1].set(1.0)
    else:
        source = jnp.full(m.num_values, 1 / m.num_values)

    def leap(key, out, x, t, dt):
        h, slope = jax.jvp(m.share.hidden, (t,), (jnp.ones_like(t),))
        back = mixture.hazard(m.share, t) * mixture.weights(m, out, x, t)
        # A mask has nothing to lose: drawing it anew is no move.
        ahead = slope / jnp.maximum(1 - h, 1e-6) * source
        return mixture.turn(key, x, dt, back + ahead)

    def step(predict, key, x, t, t_next, carry, cond):
        key_predict, key_correct = jax.random.split(key)
        x, carry = predictor.step(predict, key_predict, x, t, t_next, carry, cond)
        # Near t = 0 the hazard has no bound, and a leap must stay one.
        length = jnp.minimum(size * (t - t_next), 0.5 * t_next)

        def body(i, x):
            keys = jax.random.split(jax.random.fold_in(key_correct, i), len(t))
            return jax.vmap(leap)(keys, predict(x, t_next, cond), x, t_next, length)

        return jax.lax.fori_loop(0, steps, body, x), carry

    return Stepper(predictor.init, step, lambda times: (1 + steps) * (len(times) - 1))


def exact(
    m: Mixture,
    predict: Predict,
    key: Key,
    x: Array,
    t_min: float,
    cond: Cond = None,
    t_max: float = 1.0,
) -> tuple[Array, Array]:
    """Simulate the jumps of a mixture path from t_max down to t_min, every lane at its own time.

    Args:
        m: the mixture path; guidance must be of posteriors.
        predict: the network.
        key: a PRNG key.
        x: [B, *S] states at t_max.
        t_min: where it ends; masked sites all turn before 0, so 0 is as good.
        cond: passed to `predict`.
        t_max: where it starts.

    Returns:
        x [B, *S] at t_min, and the batched network evaluations [] int32.
    """
    masked = m.num_states > m.num_values
    last = m.share.hidden(jnp.asarray(t_min, jnp.float32))

    def body(state):
        key, x, h, running, count = state
        key, key_time, key_site, key_value = jax.random.split(key, 4)
        flat = x.reshape(len(x), -1)
        hidden = (flat == m.num_values) if masked else jnp.ones(flat.shape, bool)
        number = jnp.sum(hidden, -1)
        # The first of `number` hazards: a product of powers, in logarithms.
        u = jax.random.uniform(key_time, h.shape, minval=jnp.finfo(h.dtype).tiny)
        h = h * jnp.exp(jnp.log(u) / jnp.maximum(number, 1))
        running = running & (h > last) & (number > 0)
        # A lane that has ended still takes part in the call: any valid time will do.
        t = m.share.inverse(jnp.maximum(h, jnp.maximum(last, 1e-7)))
        law = jnp.exp(jax.vmap(m.read)(predict(x, t, cond), x, t))
        site = draws.categorical(jax.random.uniform(key_site, h.shape), hidden.astype(h.dtype))
        lane = jnp.arange(len(x))
        law = law.reshape(*flat.shape, -1)[lane, site]
        value = draws.categorical(jax.random.uniform(key_value, h.shape), law).astype(x.dtype)
        value = jnp.where(running, value, flat[lane, site])
        flat = flat.at[lane, site].set(value)
        return key, flat.reshape(x.shape), h, running, count + jnp.any(running)

    start = m.share.hidden(jnp.full(len(x), t_max, jnp.float32))
    state = (key, x, start, jnp.ones(len(x), bool), jnp.zeros((), jnp.int32))
    _, x, _, _, count = jax.lax.while_loop(lambda s: jnp.any(s[3]), body, state)
    return x, count


def classes(m: Mixture) -> Callable[..., Array]:
    """The driver's `finish`: every site that may change is drawn from the posterior."""

    def finish(predict: Predict, key: Key, x: Array, t: Array, cond: Cond) -> Array:
        law = jnp.exp(jax.vmap(m.read)(predict(x, t, cond), x, t))
        return draws.categorical(jax.random.uniform(key, x.shape), law).astype(x.dtype)

    return finish


STEPPERS: dict[str, Callable[[Path], Stepper]] = {
    "euler": euler,
    "midpoint": midpoint,
    "sde": sde,
}
