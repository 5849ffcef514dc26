"""Steppers with the exact network of an enumerable world, against the truth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import tiny

from gmjax.processes import chains, ctmc, schedules
from gmjax.samplers import discrete, driver, grids
from gmjax.types import UserError

pytestmark = pytest.mark.simulates
T_MIN = 1e-3
N = 50_000
WORLD = functools.partial(tiny.world, schedule=schedules.log_linear(1e-4))


def noise(n):
    """What the total variation of n draws from their law on 9 cells exceeds by chance 1e-4."""
    return np.sqrt(9 / (2 * np.pi * n)) + np.sqrt(np.log(1e4) / (2 * n))


NOISE = noise(N)


@functools.cache
def final_error(name, stepper, steps, kind="leave_one_out", grid="noise", dims=2, n=N):
    """Total variation between the law of n samples and the data law."""
    w = WORLD(name, dims=dims)
    read = ctmc.PARAMETRISATIONS[kind](w.ctmc)
    make = discrete.STEPPERS[stepper](w.ctmc, read)
    times = grids.GRIDS[grid](steps, T_MIN, w.ctmc.schedule)

    @jax.jit
    def run(key):
        key_base, key_run = jax.random.split(key)
        base = ctmc.base(w.ctmc, (dims,))
        x = jax.vmap(base.sample)(jax.random.split(key_base, n))
        finish = discrete.denoise(read, sample=True)
        return driver.reverse(make, tiny.oracle(w, kind), key_run, x, times, finish=finish).x

    x = np.asarray(run(jax.random.key(0)))
    k, v = w.ctmc.chain.num_states, w.ctmc.chain.num_values
    seen = tiny.histogram(w, x).reshape([k] * dims)[(slice(v),) * dims] / n
    return 0.5 * np.abs(seen - w.law).sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.LONG)
@pytest.mark.parametrize("stepper", discrete.STEPPERS)
def test_many_steps_reach_the_data_law(name, stepper):
    if stepper == "ancestral" and name != "absorbing":
        pytest.skip("ancestral sampling is of the absorbing chain")
    # 100 steps leave the error of sites moved together, which shrinks with the step.
    assert final_error(name, stepper, 100) < NOISE + 0.015


@pytest.mark.slow
@pytest.mark.parametrize("kind", ctmc.PARAMETRISATIONS)
def test_every_parametrisation_samples(kind):
    assert final_error("gaussian", "tweedie", 100, kind) < NOISE + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("stepper", ["tau_leaping", "euler", "tweedie"])
def test_error_falls_linearly_in_tau(stepper):
    """The theorem: total variation linear in the step. Halving it halves the error, the
    sampling noise of both apart."""
    n = 400_000
    few, more = (final_error("uniform", stepper, k, grid="uniform", n=n) for k in (6, 12))
    assert more > 3 * noise(n)  # else there is nothing to see
    assert 1.4 < few / more < 2.9


def test_tweedie_is_exact_on_one_site():
    """One site has nothing to share: any number of analytic leaps is exact."""
    assert final_error("rates", "tweedie", 2, dims=1) < NOISE


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.CHAINS)
def test_corrector_leaves_the_marginal_alone(name):
    """p_t (R + Rhat) = 0 by enumeration, with Rhat from the public conversions."""
    w = WORLD(name)
    t = 0.5
    k = w.ctmc.chain.num_states
    every = tiny.states(k)
    p = tiny.marginals(w, t)
    ratio = np.exp(w.outputs["ratio"](every, jnp.full(len(every), t)))
    back = np.asarray(jax.vmap(w.ctmc.chain.rates_in)(every)) * ratio
    rates = np.asarray(jax.vmap(w.ctmc.chain.rates_out)(every)) + back
    flow = np.zeros_like(p)
    for i, s in enumerate(np.asarray(every)):
        for d in range(2):
            for y in range(k):
                moved = s.copy()
                moved[d] = y
                j = moved @ np.array([k, 1])
                flow[j] += p[i] * rates[i, d, y]
                flow[i] -= p[i] * rates[i, d, y]
    np.testing.assert_allclose(flow, 0, atol=2e-4 * p.max())


def test_corrector_steps_move_a_wrong_law_to_the_marginal():
    w = WORLD("uniform")
    read = ctmc.leave_one_out(w.ctmc)
    still = discrete.leaping(w.ctmc, read)._replace(
        step=lambda predict, key, x, t, t_next, carry, cond: (x, carry)
    )
    start = jnp.zeros((N, 2), jnp.int32)
    t, t_next = jnp.full(N, 0.52), jnp.full(N, 0.5)
    errors = []
    for steps in (0, 200):
        stepper = discrete.corrected(still, w.ctmc, read, steps=steps, size=1.0)
        run = jax.jit(
            lambda key, stepper=stepper: stepper.step(
                tiny.oracle(w, "leave_one_out"), key, start, t, t_next, (), None
            )[0]
        )
        seen = tiny.histogram(w, run(jax.random.key(1))) / N
        errors.append(0.5 * np.abs(seen - tiny.marginals(w, 0.5)).sum())
    assert errors[0] > 0.3 and errors[1] < NOISE + 0.01


@pytest.mark.slow
def test_corrector_counts_its_evaluations():
    w = WORLD("uniform")
    read = ctmc.leave_one_out(w.ctmc)
    stepper = discrete.corrected(discrete.euler(w.ctmc, read), w.ctmc, read, steps=3, below=0.45)
    times = jnp.linspace(1, 0.1, 10)
    calls = []
    predict = tiny.oracle(w, "leave_one_out")

    def counted(x, t, cond):
        jax.debug.callback(lambda: calls.append(1))
        return predict(x, t, cond)

    out = driver.reverse(
        stepper, counted, jax.random.key(0), jnp.zeros((4, 2), jnp.int32), times,
        finish=discrete.denoise(read), trajectory=3,
    )  # fmt: skip
    jax.effects_barrier()
    assert int(out.nfe) == len(calls) == 9 + 3 * 4 + 1
    assert out.trajectory.shape == (10, 3, 2)


@pytest.mark.parametrize("kind", ["leave_one_out", "ratio"])
def test_a_site_whose_weights_all_underflow_stays(kind):
    """Seen values of the absorbing chain, under a network that is sure of another one."""
    noise = ctmc.CTMC(chains.absorbing(5), schedules.log_linear())
    x = jnp.arange(1, 5)[None]
    out = jnp.zeros((1, 4, 6 if kind == "ratio" else 5)).at[..., 0].set(300.0)
    stepper = discrete.tweedie(noise, ctmc.PARAMETRISATIONS[kind](noise))
    now, then = jnp.full(1, 0.5), jnp.full(1, 0.4)
    predict = lambda x, t, cond: out
    step = jax.jit(lambda x: stepper.step(predict, jax.random.key(0), x, now, then, (), None)[0])
    np.testing.assert_array_equal(step(x), x)


def test_more_than_one_jump_is_rejected():
    """Categories stay where two or more jumps fall; ordered values add them up and clamp."""
    x = jnp.full(50_000, 2)
    rates = jnp.asarray([1.0, 0.0, 0.0, 2.0]) * jnp.ones((len(x), 1))
    moved = discrete.poisson_categories(jax.random.key(0), x, rates, 0.5)
    mean = 1.5
    once = mean * np.exp(-mean)
    expected = len(x) * np.array([once / 3, 0, 1 - once, once * 2 / 3])
    seen = np.bincount(np.asarray(moved), minlength=4)
    assert seen[1] == 0
    assert scipy.stats.chisquare(seen[[0, 2, 3]], expected[[0, 2, 3]]).pvalue > 1e-3
    frozen = discrete.poisson_categories(jax.random.key(0), x, rates, 100.0)
    np.testing.assert_array_equal(frozen, x)


def test_euler_jumps_to_every_destination_at_its_rate():
    """Below and above a chance of one, at level 1e-3."""
    n = 60_000
    x, rates = jnp.full(n, 1), np.array([1.0, 0.0, 2.0, 3.0])
    for dt in (0.1, 2.0):
        moved = discrete.euler_jump(
            jax.random.key(0), x, jnp.asarray(rates, jnp.float32) * jnp.ones((n, 1)), dt
        )
        chance = min(1.0, 6 * dt)
        law = chance * rates / 6 + (1 - chance) * np.array([0, 1, 0, 0])
        seen = np.bincount(np.asarray(moved), minlength=4)
        assert np.all(seen[law == 0] == 0)
        assert scipy.stats.chisquare(seen[law > 0], n * law[law > 0]).pvalue > 1e-3


def test_ordinal_leap_is_a_sum_of_poisson_jumps():
    """Against one Poisson number a destination, at level 1e-3."""
    n = 100_000
    x, dt = jnp.full(n, 2), 0.7
    rates = np.array([0.3, 1.0, 0.0, 2.0, 0.2, 0.1])
    moved = discrete.poisson_ordinal(
        jax.random.key(0), x, jnp.asarray(rates, jnp.float32) * jnp.ones((n, 1)), dt
    )
    counts = np.random.default_rng(0).poisson(rates * dt, size=(n, 6))
    direct = np.clip(2 + counts @ (np.arange(6) - 2), 0, 5)
    table = np.stack([np.bincount(np.asarray(a), minlength=6) for a in (moved, direct)])
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.slow
def test_observed_sites_are_clamped():
    w = WORLD("absorbing")
    read = ctmc.leave_one_out(w.ctmc)
    values = jnp.tile(jnp.asarray([[2, 0]]), (N, 1))
    observed = jnp.tile(jnp.asarray([[True, False]]), (N, 1))
    x = jnp.full((N, 2), 3)
    out = driver.reverse(
        discrete.ancestral(w.ctmc, read), tiny.oracle(w, "leave_one_out"), jax.random.key(0), x,
        jnp.linspace(1, T_MIN, 40), finish=discrete.denoise(read, sample=True),
        project=discrete.infill(w.ctmc, observed, values),
    ).x  # fmt: skip
    assert np.all(np.asarray(out[:, 0]) == 2)
    law = w.law[2] / w.law[2].sum()
    seen = np.bincount(np.asarray(out[:, 1]), minlength=3)[:3] / N
    assert 0.5 * np.abs(seen - law).sum() < NOISE + 1e-3


@pytest.mark.slow
def test_adaptive_grid_is_a_grid_and_puts_steps_where_the_posterior_moves():
    w = WORLD("uniform")
    read = ctmc.leave_one_out(w.ctmc)
    x = jax.random.randint(jax.random.key(0), (256, 2), 0, 3)
    times = discrete.adaptive_grid(
        discrete.tweedie(w.ctmc, read), read, tiny.oracle(w, "leave_one_out"),
        jax.random.key(1), x, jnp.linspace(1, T_MIN, 33), 16,
    )  # fmt: skip
    times = np.asarray(times)
    assert times.shape == (17,) and np.all(np.diff(times) < 0)
    np.testing.assert_allclose(times[[0, -1]], [1, T_MIN], rtol=1e-6)
    # A density that sits in [0.2, 0.4] draws most of the steps there.
    pilot = np.linspace(1, 0, 101)
    density = np.where((pilot[1:] >= 0.2) & (pilot[1:] < 0.4), 1.0, 0.0)
    grid = np.asarray(grids.equidistribute(jnp.asarray(pilot), jnp.asarray(density), 20))
    assert np.mean((grid > 0.2) & (grid < 0.4)) > 0.6


@pytest.mark.parametrize("name", grids.GRIDS)
@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_grids_fall_from_one_to_t_min(name, schedule):
    times = np.asarray(grids.GRIDS[name](20, 0.01, schedules.SCHEDULES[schedule]()))
    assert times.shape == (21,) and np.all(np.diff(times) < 0)
    np.testing.assert_allclose(times[[0, -1]], [1, 0.01], rtol=1e-6)


def test_what_needs_another_chain_says_so():
    masked = ctmc.CTMC(chains.absorbing(3), schedules.log_linear())
    plain = ctmc.CTMC(chains.uniform(3), schedules.log_linear())
    with pytest.raises(UserError, match="ancestral"):
        discrete.ancestral(plain, ctmc.leave_one_out(plain))
    with pytest.raises(UserError, match="ordinal"):
        discrete.tau_leaping(masked, ctmc.leave_one_out(masked), ordinal=True)
