"""Exact simulation against the enumerated law, and its bound."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import tiny

from gmjax.processes import ctmc, schedules
from gmjax.samplers import exact, grids

pytestmark = pytest.mark.simulates
T_MIN = 0.05
WORLD = functools.partial(tiny.world, schedule=schedules.log_linear(1e-4))


def predict_each(world, kind):
    """The exact network with a time an example."""
    return lambda x, t, cond: world.outputs[kind](x, t)


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.CHAINS)
def test_reverse_simulation_has_the_marginal_at_t_min(name):
    """A chi-square test at level 1e-3; no candidate exceeds the bound."""
    w = WORLD(name)
    n = 20_000
    read = ctmc.leave_one_out(w.ctmc)
    base = ctmc.base(w.ctmc, (2,))
    windows = grids.clock(40, T_MIN, w.ctmc.schedule)

    @jax.jit
    def run(key):
        key_base, key_run = jax.random.split(key)
        x = jax.vmap(base.sample)(jax.random.split(key_base, n))
        return exact.exact(w.ctmc, read, predict_each(w, "leave_one_out"), key_run, x, windows)

    out = run(jax.random.key(0))
    assert int(out.violations) == 0
    assert int(out.nfe) > 1 and np.asarray(out.jumps).mean() > 0.5
    expected = tiny.marginals(w, T_MIN)
    seen = tiny.histogram(w, out.x)
    possible = expected * n > 5
    few = ~possible
    table = np.append(seen[possible], seen[few].sum())
    law = np.append(expected[possible], expected[few].sum()) * n
    table, law = (a[law > 0] for a in (table, law))
    assert scipy.stats.chisquare(table, law * table.sum() / law.sum()).pvalue > 1e-3


def test_observed_sites_never_move():
    w = WORLD("uniform")
    observed = jnp.zeros((500, 2), bool).at[:, 0].set(True)
    x = jnp.ones((500, 2), jnp.int32)
    out = exact.exact(
        w.ctmc, ctmc.leave_one_out(w.ctmc), predict_each(w, "leave_one_out"),
        jax.random.key(0), x, jnp.linspace(1, T_MIN, 9), {"observed": observed},
    )  # fmt: skip
    assert np.all(np.asarray(out.x[:, 0]) == 1) and np.any(np.asarray(out.x[:, 1]) != 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.CHAINS)
def test_bound_holds_for_any_posterior(name):
    """Random and extreme posteriors at random times never exceed it."""
    w = WORLD(name)
    read = ctmc.leave_one_out(w.ctmc)
    windows = grids.clock(20, T_MIN, w.ctmc.schedule)
    table = np.asarray(exact.reverse_bound(w.ctmc, windows))
    k, v = w.ctmc.chain.num_states, w.ctmc.chain.num_values
    key_t, key_out, key_x = jax.random.split(jax.random.key(0), 3)
    n = 5000
    t = jax.random.uniform(key_t, (n,), minval=T_MIN, maxval=1.0)
    x = jax.random.randint(key_x, (n, 1), 0, k)
    out = 20.0 * jax.random.normal(key_out, (n, 1, v))
    ratio = jax.vmap(read.ratio)(out, x, t)
    rates = jax.vmap(lambda r, x, t: ctmc.reverse_rates(w.ctmc, r, x, t))(ratio, x, t)
    total = np.asarray(jnp.sum(rates, (-1, -2)))
    window = np.searchsorted(-np.asarray(windows), -np.asarray(t), side="right") - 1
    limit = table[np.clip(window, 0, 19), np.asarray(x)[:, 0]]
    assert np.all(total <= limit * (1 + 1e-4) + 1e-4)
    assert np.median(total[limit > 0.1] / limit[limit > 0.1]) > 0.05  # and is not idle


def test_thinning_forward_has_poisson_counts():
    """A rate of 2 + cos 6 t over [0, 1]: the count of jumps is Poisson of its integral."""
    n = 20_000
    rates = lambda x, t: (
        jnp.stack([jnp.where(x == 0, 0, 1), jnp.where(x == 0, 1, 0)], -1)
        * (2 + jnp.cos(6 * t))[:, None, None]
    )
    out = exact.thinning(
        rates, lambda x, w: jnp.full(len(x), 3.0), jax.random.key(0),
        jnp.zeros((n, 1), jnp.int32), jnp.asarray([0.0, 0.3, 1.0]),
    )  # fmt: skip
    mean = 2 + np.sin(6) / 6
    seen = np.bincount(np.asarray(out.jumps), minlength=9)[:9]
    law = scipy.stats.poisson.pmf(np.arange(9), mean)
    seen[8], law[8] = n - seen[:8].sum(), 1 - law[:8].sum()
    assert int(out.violations) == 0
    assert scipy.stats.chisquare(seen, law * n).pvalue > 1e-3


def test_a_bound_that_is_too_low_is_counted():
    rates = lambda x, t: jnp.stack([0.0 * x, 5.0 + 0.0 * x], -1)
    out = exact.thinning(
        rates, lambda x, w: jnp.full(len(x), 1.0), jax.random.key(0),
        jnp.zeros((100, 1), jnp.int32), jnp.asarray([1.0, 0.0]),
    )  # fmt: skip
    assert int(out.violations) > 0
