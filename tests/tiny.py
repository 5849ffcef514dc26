"""A discrete world small enough to enumerate: the oracle of losses and samplers."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.processes import chains, ctmc, schedules

CYCLE = np.array([[-1.0, 1, 0], [0.2, -1.2, 1], [1, 0, -1]])
CHAINS = {
    "uniform": lambda: chains.uniform(3),
    "absorbing": lambda: chains.absorbing(3),
    "birth_death": lambda: chains.birth_death(3),
    "gaussian": lambda: chains.gaussian(3, 2.0, 1.0),
    "rates": lambda: chains.rates(CYCLE),
}
# For the long oracles: two chains in every run, the others in the slow tier.
QUICK = ("uniform", "absorbing")
LONG = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CHAINS]


def states(k, dims=2):
    """Every state: [k^D, D]."""
    return jnp.asarray(list(itertools.product(range(k), repeat=dims)), jnp.int32)


def expectation(world, integrand, times, weights):
    """sum_x0 p(x0) sum_t w_t sum_x q_t(x | x0) integrand(x0, x, t), all enumerated.

    Args:
        integrand: (x0 [D], x [D], t []) -> [].
        times, weights: [T], a quadrature rule.
    """
    chain, schedule = world.ctmc
    dims = world.values.shape[1]
    x = states(chain.num_states, dims)

    def at(x0, t):
        rows = chain.row(x0, schedule.clock(t))
        q = jnp.prod(jnp.take_along_axis(rows, x.T, -1), 0)
        return jnp.sum(jnp.where(q > 0, q * jax.vmap(lambda x: integrand(x0, x, t))(x), 0))

    over_x0 = jax.vmap(at, (0, None))
    values = jax.lax.map(lambda t: over_x0(jnp.asarray(world.values), t), times, batch_size=64)
    return jnp.sum(weights * (values @ jnp.asarray(world.law.reshape(-1), jnp.float32)))


def quadrature(schedule, t_min, points=400):
    """Gauss-Legendre in log B(t): times and weights of an integral over [t_min, 1]."""
    with jax.ensure_compile_time_eval():
        low, high = np.log(np.asarray(schedule.clock(jnp.asarray([t_min, 1.0])), np.float64))
        nodes, weights = np.polynomial.legendre.leggauss(points)
        clock = np.exp(low + (high - low) * (nodes + 1) / 2)
        t = schedule.inverse(jnp.asarray(clock, jnp.float32))
        # dt = dB / beta, dB = B d(log B)
        weights = weights * (high - low) / 2 * clock
        return t, jnp.asarray(weights, jnp.float32) / schedule.rate(t)


class World(NamedTuple):
    """A process, the law of its data, and networks that know the truth."""

    ctmc: ctmc.CTMC
    law: np.ndarray  # [V] * D
    values: np.ndarray  # [V^D, D]
    marginal: callable  # (x [D], t) -> p_t(x)
    outputs: dict  # parametrisation -> Predict


@functools.cache
def world(name, schedule=None, dims=2, seed=0):
    """The exact marginals and predictions of a random law on V^D."""
    chain = CHAINS[name]()
    process = ctmc.CTMC(chain, schedule or schedules.log_linear(1e-3))
    v, k = chain.num_values, chain.num_states
    law = np.random.default_rng(seed).dirichlet(np.full(v**dims, 0.7)).reshape([v] * dims)
    values = np.array(list(itertools.product(range(v), repeat=dims)))
    weights = jnp.asarray(law.reshape(-1), jnp.float32)

    def likelihoods(x, t):
        """q(x_d | x0_d) of every possible x0: [N, D]."""
        rows = chain.row(jnp.asarray(values), process.schedule.clock(t))
        return jnp.take_along_axis(rows, jnp.broadcast_to(x, values.shape)[..., None], -1)[..., 0]

    def marginal(x, t):
        return jnp.sum(weights * jnp.prod(likelihoods(x, t), -1))

    def leave_one_out(x, t):
        q = likelihoods(x, t)
        out = []
        for d in range(dims):
            others = weights * jnp.prod(jnp.delete(q, d, axis=1), -1)
            out.append(jax.ops.segment_sum(others, jnp.asarray(values[:, d]), v))
        return jnp.log(jnp.maximum(jnp.stack(out), 1e-30))

    def posterior(x, t):
        return ctmc.leave_one_out_to_posterior(process, leave_one_out(x, t), x, t)

    def ratio(x, t):
        def moved(d, y):
            return marginal(x.at[d].set(y), t)

        table = jax.vmap(lambda d: jax.vmap(lambda y: moved(d, y))(jnp.arange(k)))
        return jnp.log(jnp.maximum(table(jnp.arange(dims)) / marginal(x, t), 1e-30))

    exact = {"posterior": posterior, "leave_one_out": leave_one_out, "ratio": ratio}
    outputs = {
        name: jax.jit(lambda x, t, cond=None, f=f: jax.vmap(f)(x, t)) for name, f in exact.items()
    }
    return World(process, law, values, jax.jit(marginal), outputs)


def oracle(world, kind):
    """The exact network, evaluated on all states once a call: all times must be equal."""
    k, dims = world.ctmc.chain.num_states, world.values.shape[1]
    every = states(k, dims)
    place = jnp.asarray([k**i for i in reversed(range(dims))])

    def predict(x, t, cond=None):
        table = world.outputs[kind](every, jnp.full(len(every), t[0]))
        return table[x @ place]

    return predict


def histogram(world, x):
    """Counts of the states x [n, D]: [K^D]."""
    k, dims = world.ctmc.chain.num_states, world.values.shape[1]
    index = np.asarray(x) @ np.array([k**i for i in reversed(range(dims))])
    return np.bincount(index, minlength=k**dims)


def marginals(world, t):
    """p_t of every state: [K^D] float64."""
    every = states(world.ctmc.chain.num_states, world.values.shape[1])
    p = np.asarray(jax.vmap(lambda x: world.marginal(x, t))(every), np.float64)
    return p / p.sum()
