"""Steppers of the discrete reverse process.

Over a step from t to s < t the clock of the chain moves by db = B(t) - B(s), and the reverse
rates per unit of clock, Rhat(y) = R[y, x] p_t(y) / p_t(x), are held at their values at t:

    tau_leaping  P_y ~ Poisson(db Rhat(y)) jumps to each y, applied together. The total count
                 N ~ Poisson(db sum Rhat) and N independent destinations ~ Rhat have the same
                 law (Poisson splitting), for one Poisson number a site instead of K.
                 Ordinal values add up their N displacements and clamp; categories have no
                 sum, so a site with N > 1 does not move (Campbell et al. 2022, section 4.4).
    euler        one jump at most, to y with probability db Rhat(y).
    tweedie      the exact p(x_s | x_t) of a site under the predicted posterior,
                 sum_x0 q(x_s | x0) g(x0) * q(x_t | x_s), normalised (Lou et al. 2024, theorem 4.2).
    ancestral    the same for the absorbing chain: a masked site is revealed with probability
                 (alpha_s - alpha_t) / (1 - alpha_t), its value drawn from the posterior.

A corrector step at fixed t leaps with R + Rhat, which leaves p_t invariant.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from gmjax import draws, generators
from gmjax.processes.ctmc import CTMC, Parametrisation
from gmjax.samplers import grids
from gmjax.samplers.driver import count_steps
from gmjax.types import Array, Cond, Key, Predict, Stepper, UserError


def poisson_categories(key: Key, x: Array, rates: Array, dt: Array) -> Array:
    """A tau-leap of categories: a site with more than one jump stays.

    Args:
        x: [*S] states.
        rates: [*S, K], zero at x.
        dt: [], time.
    """
    chance, choice = draws.uniform(key, (2, *x.shape))
    mean = dt * jnp.sum(rates, -1)
    # Only N = 1 matters: P(N = 1) = mean exp(-mean), and u itself decides.
    once = chance < mean * jnp.exp(-mean)
    return jnp.where(once, draws.categorical(choice, rates).astype(x.dtype), x)


def poisson_ordinal(key: Key, x: Array, rates: Array, dt: Array) -> Array:
    """A tau-leap of ordered values: all jumps are added and the sum is clamped."""
    key_count, key_choice = jax.random.split(key)
    # More jumps than this end at a clamp; a ratio that overflows must not loop for ever.
    mean = jnp.minimum(dt * jnp.sum(rates, -1), 1000.0)
    count = draws.poisson(draws.uniform(key_count, x.shape), mean)
    choose = draws.chooser(rates)

    def jump(state):
        n, moved = state
        u = draws.uniform(jax.random.fold_in(key_choice, n), x.shape)
        return n + 1, moved + jnp.where(n < count, choose(u) - x, 0)

    state = (0, jnp.zeros_like(x))
    _, moved = jax.lax.while_loop(lambda s: jnp.any(s[0] < count), jump, state)
    return jnp.clip(x + moved, 0, rates.shape[-1] - 1)


def euler_jump(key: Key, x: Array, rates: Array, dt: Array) -> Array:
    """One jump at most."""
    return generators.euler(draws.uniform(key, x.shape), x, rates, dt)


JUMPS: dict[str, Callable[[Key, Array, Array, Array], Array]] = {
    "categorical": poisson_categories,
    "ordinal": poisson_ordinal,
    "euler": euler_jump,
}


def leaping(ctmc: CTMC, read: Parametrisation, jump: Callable = poisson_categories) -> Stepper:
    """Leaps with the reverse rates frozen; `jump` is an entry of `JUMPS`."""
    return _stateless(partial(_leap, ctmc, read, jump, False))


def tau_leaping(ctmc: CTMC, read: Parametrisation, ordinal: bool = False) -> Stepper:
    """Tau-leaping; `ordinal` adds up jumps instead of rejecting more than one.

    Raises:
        UserError: ordinal leaps for a chain with a mask state, which has no order.
    """
    if ordinal and ctmc.chain.num_values < ctmc.chain.num_states:
        raise UserError("config.sample.ordinal=True needs ordered states; a mask has no order")
    return leaping(ctmc, read, poisson_ordinal if ordinal else poisson_categories)


def euler(ctmc: CTMC, read: Parametrisation) -> Stepper:
    """Euler's rule: one jump at most a site."""
    return leaping(ctmc, read, euler_jump)


def tweedie(ctmc: CTMC, read: Parametrisation) -> Stepper:
    """The analytic leap, exact at every site under the predicted posterior."""
    chain, schedule = ctmc

    def site(key, out, x, t, s):
        between = chain.column(x, schedule.clock(t) - schedule.clock(s))
        weights = read.law(out, x, t, s) * between
        y = draws.categorical(draws.uniform(key, x.shape), weights)
        # A network so sure that every product underflows leaves no weight: the site stays.
        possible = jnp.take_along_axis(weights, y[..., None], -1)[..., 0] > 0
        return jnp.where(possible, y.astype(x.dtype), x)

    return _stateless(site)


def ancestral(ctmc: CTMC, read: Parametrisation) -> Stepper:
    """Ancestral sampling of the absorbing chain.

    Raises:
        UserError: the chain has no mask state.
    """
    chain, schedule = ctmc
    mask = chain.num_values
    if mask == chain.num_states:
        raise UserError("config.sample.name='ancestral' needs the absorbing process")

    def site(key, out, x, t, s):
        reveal, choice = draws.uniform(key, (2, *x.shape))
        hidden_t, hidden_s = -jnp.expm1(-schedule.clock(t)), -jnp.expm1(-schedule.clock(s))
        shown = (x == mask) & (reveal * hidden_t < hidden_t - hidden_s)
        value = draws.categorical(choice, jnp.exp(read.log_posterior(out, x, t)))
        return jnp.where(shown, value.astype(x.dtype), x)

    return _stateless(site)


def corrected(
    stepper: Stepper,
    ctmc: CTMC,
    read: Parametrisation,
    jump: Callable = poisson_categories,
    steps: int = 1,
    size: float = 1.5,
    below: float = 1.0,
) -> Stepper:
    """A predictor followed by corrector leaps with R + Rhat at the new time.

    Args:
        stepper: the predictor.
        jump: an entry of `JUMPS`.
        steps: corrector leaps a step.
        size: length of one, in units of the predictor's step.
        below: correct only at times below this.

    Source: Campbell et al. (2022), section 4.4 and proposition 4.
    """
    correct = partial(_leap, ctmc, read, jump, True)

    def step(predict, key, x, t, t_next, carry, cond):
        key_predict, key_correct = jax.random.split(key)
        x, carry = stepper.step(predict, key_predict, x, t, t_next, carry, cond)
        length = size * (ctmc.schedule.clock(t) - ctmc.schedule.clock(t_next))

        def leaps(x):
            def body(i, x):
                keys = jax.random.split(jax.random.fold_in(key_correct, i), len(x))
                out = predict(x, t_next, cond)
                return jax.vmap(correct)(keys, out, x, t_next, t_next, length)

            return jax.lax.fori_loop(0, steps, body, x)

        return jax.lax.cond(jnp.all(t_next < below), leaps, lambda x: x, x), carry

    def nfe(times):
        return stepper.nfe(times) + steps * jnp.sum(jnp.asarray(times)[1:] < below)

    return Stepper(stepper.init, step, nfe)


def adaptive_grid(
    stepper: Stepper,
    read: Parametrisation,
    predict: Predict,
    key: Key,
    x: Array,
    times: Array,
    steps: int,
    cond: Cond = None,
) -> Array:
    """A time grid on which the predicted posterior moves equally far in every step.

    A pilot batch runs along `times`; how far its posterior moves from one time to the next, in
    total variation a site, is the density that `grids.equidistribute` shares out.

    Args:
        x: [B, *S], the pilot's draw of the base law.
        times: [M + 1], the pilot's grid.
        steps: N, of the grid to make.

    Returns:
        [N + 1] decreasing times.
    """

    def body(state, inputs):
        x, carry, before = state
        i, t, t_next = inputs
        t, t_next = jnp.full(len(x), t), jnp.full(len(x), t_next)
        x, carry = stepper.step(predict, jax.random.fold_in(key, i), x, t, t_next, carry, cond)
        after = jnp.exp(jax.vmap(read.log_posterior)(predict(x, t_next, cond), x, t_next))
        return (x, carry, after), jnp.mean(jnp.sum(jnp.abs(after - before), -1))

    t = jnp.full(len(x), times[0])
    first = jnp.exp(jax.vmap(read.log_posterior)(predict(x, t, cond), x, t))
    inputs = (jnp.arange(len(times) - 1), times[:-1], times[1:])
    _, moved = jax.lax.scan(body, (x, stepper.init(x), first), inputs)
    return grids.equidistribute(times, moved / -jnp.diff(times), steps)


def denoise(read: Parametrisation, sample: bool = False) -> Callable[..., Array]:
    """The last step: the mode of p(x0 | x) at t_min, or a draw from it.

    Returns:
        (predict, key, x [B, *S], t [B], cond) -> x0 [B, *S].
    """

    def finish(predict: Predict, key: Key, x: Array, t: Array, cond):
        log_p = jax.vmap(read.log_posterior)(predict(x, t, cond), x, t)
        if sample:
            u = draws.uniform(key, x.shape)
            return draws.categorical(u, jnp.exp(log_p)).astype(x.dtype)
        return jnp.argmax(log_p, -1).astype(x.dtype)

    return finish


def infill(
    ctmc: CTMC, observed: Array, values: Array, clean: bool = True
) -> Callable[[Key, Array, Array], Array]:
    """Clamps the observed sites of a conditional simulation.

    Args:
        observed: [B, *S] bool.
        values: [B, *S], what they are.
        clean: True for a model trained with its observed sites clean; False noises them to
            the time of the other sites, for a model that was not.

    Returns:
        The `project` argument of `driver.reverse`.
    """

    def project(key: Key, x: Array, t: Array) -> Array:
        known = values.astype(x.dtype)
        if not clean:
            keys = jax.random.split(key, len(x))
            known = jax.vmap(ctmc.chain.sample)(keys, known, ctmc.schedule.clock(t))
        return jnp.where(observed, known, x)

    return project


def _leap(ctmc, read, jump, forward_too, key, out, x, t, s, length=None):
    """One leap of one state; `forward_too` adds the forward rates (the corrector)."""
    chain, schedule = ctmc
    rates = chain.rates_in(x) * read.ratio(out, x, t)
    if forward_too:
        rates = rates + chain.rates_out(x)
    length = schedule.clock(t) - schedule.clock(s) if length is None else length
    return jump(key, x, rates, length)


def _stateless(site: Callable) -> Stepper:
    """A stepper from (key, out, x, t, s) -> x of one state, one evaluation a step."""

    def step(predict, key, x, t, t_next, carry, cond):
        keys = jax.random.split(key, len(x))
        return jax.vmap(site)(keys, predict(x, t, cond), x, t, t_next), carry

    return Stepper(lambda x: (), step, count_steps)


STEPPERS: dict[str, Callable[..., Stepper]] = {
    "tau_leaping": tau_leaping,
    "euler": euler,
    "tweedie": tweedie,
    "ancestral": ancestral,
}
