"""Kernels, conversions and the generator of factorised chains, by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import tiny

from gmjax.processes import ctmc, schedules

NAMES = list(tiny.CHAINS)
T = 0.4


def states(world):
    k = world.ctmc.chain.num_states
    return jnp.asarray([[a, b] for a in range(k) for b in range(k)], jnp.int32)


def possible(world, x):
    """States that p_t gives mass to: for the absorbing chain all of them here."""
    return np.asarray([float(world.marginal(s, T)) > 1e-9 for s in x])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_parametrisation_gives_the_true_ratio(name):
    """s(y) = p_t(y) / p_t(x) by enumeration, from each of the three outputs."""
    w = tiny.world(name)
    x = states(w)
    t = jnp.full(len(x), T)
    moves = np.asarray(jax.vmap(w.ctmc.chain.rates_in)(x)) > 0  # where a reverse jump can go
    truth = np.exp(w.outputs["ratio"](x, t))
    for kind, make in ctmc.PARAMETRISATIONS.items():
        read = make(w.ctmc)
        out = w.outputs[kind](x, t)
        for found in (
            jax.vmap(read.ratio)(out, x, t),
            jnp.exp(jax.vmap(read.log_ratio)(out, x, t)),
        ):
            np.testing.assert_allclose(
                np.asarray(found)[moves], truth[moves], rtol=2e-4, atol=1e-5, err_msg=kind
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_parametrisation_gives_the_true_posterior(name):
    w = tiny.world(name)
    x = states(w)
    t = jnp.full(len(x), T)
    truth = np.exp(w.outputs["posterior"](x, t))
    for kind, make in ctmc.PARAMETRISATIONS.items():
        read = make(w.ctmc)
        found = np.exp(jax.vmap(read.log_posterior)(w.outputs[kind](x, t), x, t))
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(found, truth, atol=2e-4, err_msg=kind)


@pytest.mark.parametrize("name", NAMES)
def test_law_of_a_site_at_an_earlier_time(name):
    """law(s) ~ sum_x0 g(x0) q_s(y | x0), from each output."""
    w = tiny.world(name)
    x = states(w)
    t, s = jnp.full(len(x), T), jnp.full(len(x), 0.25)
    g = jax.nn.softmax(w.outputs["leave_one_out"](x, t), -1)
    clock = w.ctmc.schedule.clock
    truth = np.asarray(jax.vmap(lambda g, s: w.ctmc.chain.push(g, clock(s)))(g, s))
    for kind, make in ctmc.PARAMETRISATIONS.items():
        law = jax.vmap(make(w.ctmc).law)(w.outputs[kind](x, t), x, t, s)
        law = np.asarray(law / law.sum(-1, keepdims=True))
        # An unmasked site has one possible value; its ratio knows nothing of the others.
        open_ = np.ones(law.shape[:2], bool)
        if name == "absorbing":
            open_ = np.asarray(x) == w.ctmc.chain.num_values
        np.testing.assert_allclose(law[open_], truth[open_], atol=5e-4, err_msg=kind)


@pytest.mark.parametrize("name", NAMES)
def test_rates_and_ratio_invert_each_other(name):
    w = tiny.world(name)
    x = states(w)
    t = jnp.full(len(x), T)
    ratio = jnp.exp(w.outputs["ratio"](x, t))
    rates = jax.vmap(lambda r, x, t: ctmc.reverse_rates(w.ctmc, r, x, t))(ratio, x, t)
    back = jax.vmap(lambda r, x, t: ctmc.rates_to_ratio(w.ctmc, r, x, t))(rates, x, t)
    moves = np.asarray(jax.vmap(w.ctmc.chain.rates_in)(x)) > 0
    np.testing.assert_allclose(np.asarray(back)[moves], np.asarray(ratio)[moves], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_time_reversal_by_enumeration(name):
    """p_t Rhat_t as flows is the transpose of p_t R_t, for every pair of states."""
    w = tiny.world(name)
    x = states(w)
    t = jnp.full(len(x), T)
    p = np.asarray(jax.vmap(lambda x: w.marginal(x, T))(x))
    ratio = jnp.exp(w.outputs["ratio"](x, t))
    back = jax.vmap(lambda r, x: ctmc.reverse_rates(w.ctmc, r, x, T))(ratio, x)
    forward = w.ctmc.schedule.rate(T) * jax.vmap(w.ctmc.chain.rates_out)(x)
    index = {tuple(s): i for i, s in enumerate(np.asarray(x))}
    for i, s in enumerate(np.asarray(x)):
        for d in range(2):
            for y in range(w.ctmc.chain.num_states):
                moved = list(s)
                moved[d] = y
                j = index[tuple(moved)]
                if i != j:
                    np.testing.assert_allclose(
                        p[i] * back[i, d, y], p[j] * forward[j, d, s[d]], rtol=1e-3, atol=1e-7
                    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_generator_kolmogorov_and_adjoint(name):
    """d/dt E f(X_t) = E L f(X_t) for the exact kernel, and <L f, g> = <f, L* g>."""
    w = tiny.world(name)
    process = ctmc.process(w.ctmc, (2,))
    x = states(w)
    rng = np.random.default_rng(1)
    k = w.ctmc.chain.num_states
    f_table, g_table = jnp.asarray(rng.normal(size=(2, k, k)), jnp.float32)
    f, g = (lambda x: f_table[x[0], x[1]]), (lambda x: g_table[x[0], x[1]])
    lf = jax.vmap(lambda x: process.generator.apply(f, x, T))(x)
    lg = jax.vmap(lambda x: process.generator.adjoint(g, x, T))(x)
    left = float(jnp.sum(lf * jax.vmap(g)(x)))
    np.testing.assert_allclose(left, float(jnp.sum(jax.vmap(f)(x) * lg)), rtol=1e-4)
    x0 = jnp.asarray([1, 2])

    def mean(t):
        q = jnp.exp(jax.vmap(lambda x: process.log_prob(x, x0, t))(x))
        return jnp.sum(q * jax.vmap(f)(x))

    q = jnp.exp(jax.vmap(lambda x: process.log_prob(x, x0, T))(x))
    h = 1e-2
    slope = (8 * (mean(T + h) - mean(T - h)) - (mean(T + 2 * h) - mean(T - 2 * h))) / (12 * h)
    np.testing.assert_allclose(slope, jnp.sum(q * lf), rtol=2e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_step_is_weakly_first_order(name):
    """(E f(step(x)) - f(x)) / dt -> L f(x), within four standard errors and O(dt)."""
    w = tiny.world(name, schedule=schedules.constant(1.0))
    process = ctmc.process(w.ctmc, (2,))
    x, dt, n = jnp.asarray([0, 1]), 0.01, 400_000
    f = lambda y: jnp.all(y == x) + 0.2 * jnp.cos(1.0 * y[0] + 2.0 * y[1])
    keys = jax.random.split(jax.random.key(0), n)
    moved = jax.vmap(lambda key: f(process.generator.step(key, x, T, dt)))(keys)
    change = (moved - f(x)) / dt
    error = float(jnp.std(change)) / np.sqrt(n)
    # Both sites may move in one step, which L does not: at most 4 |f| r_1 r_2 dt of bias.
    bias = 4 * dt * float(jnp.prod(w.ctmc.chain.exit_rate(x)))
    truth = float(process.generator.apply(f, x, T))
    assert abs(float(jnp.mean(change)) - truth) < 4 * error + bias
    assert 4 * error + bias < 0.5 * abs(truth)  # else the test would say nothing


@pytest.mark.parametrize("name", NAMES)
def test_base_is_close_to_the_stationary_law_and_normalised(name):
    w = tiny.world(name, schedule=schedules.constant(12.0))
    law = np.asarray(ctmc.base_law(w.ctmc))
    np.testing.assert_allclose(law.sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(law, w.ctmc.chain.stationary, atol=1e-4)
    base = ctmc.process(w.ctmc, (2,)).base
    x = jax.vmap(base.sample)(jax.random.split(jax.random.key(0), 5000))
    seen = np.bincount(np.asarray(x).reshape(-1), minlength=law.size) / 10_000
    np.testing.assert_allclose(seen, law, atol=4 * 0.5 / np.sqrt(10_000))


@pytest.mark.parametrize("name", NAMES)
def test_conditional_ratio_is_the_kernels(name):
    w = tiny.world(name)
    process = ctmc.process(w.ctmc, (2,))
    x0 = jnp.asarray([0, 2])
    x = process.sample(jax.random.key(5), x0, T)
    rows = np.asarray(w.ctmc.chain.row(x0, w.ctmc.schedule.clock(T)))
    expected = rows / rows[np.arange(2), np.asarray(x)][:, None]
    np.testing.assert_allclose(process.target(x0, x, T), expected, rtol=1e-4, atol=1e-6)


def test_kernel_composes_in_time():
    """Chapman-Kolmogorov in the chain's own clock, against the matrix exponential."""
    chain = tiny.CHAINS["rates"]()
    clock = schedules.geometric(1.0, 4.0).clock
    one, two = float(clock(0.3)), float(clock(0.8) - clock(0.3))
    both = chain.push(chain.row(jnp.arange(3), one), two)
    expected = scipy.linalg.expm(float(clock(0.8)) * tiny.CYCLE)
    np.testing.assert_allclose(both, expected, atol=2e-6)
