"""Discrete flow matching on an enumerated world: rates, bound, sampling steps."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.losses import flow_matching
from gmjax.paths import mixture
from gmjax.types import UserError

V, D = 3, 2
VALUES = np.array(list(itertools.product(range(V), repeat=D)))
LAW = np.random.default_rng(0).dirichlet(np.full(V**D, 0.7))
KEY = jax.random.key(0)
WORLDS = [(s, h) for s in mixture.SOURCES for h in ("linear", "cubic", "cosine")]
SHARES = {"linear": mixture.power(), "cubic": mixture.power(3.0), "cosine": mixture.cosine()}


def world(source, share="linear", **own):
    return mixture.mixture(V, SHARES[share], source, **own)


def states(m):
    return np.array(list(itertools.product(range(m.num_states), repeat=D)))


def kernel(m, t):
    """q(x | x0) of one site: [V, K], as the path says it."""
    h = m.share.hidden(jnp.asarray(t))
    pi = jnp.eye(m.num_states)[-1] if m.num_states > V else jnp.full(V, 1 / V)
    return (1 - h) * jnp.eye(V, m.num_states) + h * pi


def joint(m, x, t):
    """p(x0) q(x | x0) of every x0: [V^D]."""
    q = kernel(m, t)
    return LAW * jnp.prod(jnp.stack([q[VALUES[:, d], x[d]] for d in range(D)]), 0)


def logits(m, x, t):
    """The exact network: log p(x0^d = y | x), [D, V]."""
    p = joint(m, x, t)
    rows = [jax.ops.segment_sum(p, jnp.asarray(VALUES[:, d]), V) for d in range(D)]
    return jnp.log(jnp.maximum(jnp.stack(rows), 1e-30))


@functools.cache
def network(m):
    one = jax.jit(jax.vmap(lambda x, t: logits(m, x, t)))
    return lambda x, t, cond=None: one(x, t)


def marginal(m, t):
    return jax.vmap(lambda x: jnp.sum(joint(m, x, t)))(jnp.asarray(states(m)))


def generator(m, rates):
    """[K^D, K^D] of rates [K^D, D, K] to single-site neighbours."""
    every = states(m)
    place = {tuple(x): i for i, x in enumerate(every)}
    out = np.zeros((len(every), len(every)))
    for i, x in enumerate(every):
        for d in range(D):
            for y in range(m.num_states):
                to = place[tuple(np.where(np.arange(D) == d, y, x))]
                if to != i:
                    out[i, to] += rates[i, d, y]
    return out - np.diag(out.sum(1))


@pytest.mark.slow
@pytest.mark.parametrize("source, share", WORLDS)
def test_the_rates_generate_the_marginals(source, share):
    """dp/dt = -p A backward (posteriors by the hazard) and p A forward (redraws), float64."""
    with jax.enable_x64(True):
        m, every = world(source, share), jnp.asarray(states(world(source)))
        for t in (0.2, 0.7):
            t = jnp.asarray(t)
            p, change = jax.jvp(lambda t: marginal(m, t), (t,), (jnp.ones(()),))
            out = jax.vmap(lambda x, t=t: logits(m, x, t))(every)
            read = jax.vmap(lambda o, x, t=t: mixture.weights(m, o, x, t))(out, every)
            back = generator(m, np.asarray(mixture.hazard(m.share, t) * read))
            np.testing.assert_allclose(p @ back, -change, atol=1e-9)
            h, slope = jax.jvp(m.share.hidden, (t,), (jnp.ones(()),))
            redrawn = np.broadcast_to(kernel(m, 1.0)[0], (*every.shape, m.num_states))
            ahead = generator(m, np.asarray(slope / (1 - h)) * redrawn)
            np.testing.assert_allclose(p @ ahead, change, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("source, share", WORLDS)
def test_the_path_has_its_kernel_and_its_inverse(source, share):
    m = world(source, share)
    path, n = mixture.path(m, (D,)), 20_000
    x0 = jnp.tile(jnp.asarray([0, 2]), (n, 1))

    @jax.jit
    def run(key):
        first, second = jax.random.split(key)
        x1 = jax.vmap(path.base.sample)(jax.random.split(first, n))
        return jax.vmap(path.draw, (0, 0, 0, None))(jax.random.split(second, n), x0, x1, 0.4)

    x, target = run(KEY)
    assert target is not None and np.all(np.asarray(target) == np.asarray(x0))
    q = np.asarray(kernel(m, 0.4))
    for d, value in enumerate((0, 2)):
        seen = np.bincount(np.asarray(x)[:, d], minlength=m.num_states) / n
        off = np.abs(seen - q[value]) / np.sqrt(q[value] * (1 - q[value]) / n + 1e-12)
        assert off.max() < 4.5
    t = jnp.linspace(0.05, 1, 20)
    np.testing.assert_allclose(m.share.inverse(m.share.hidden(t)), t, rtol=1e-3)
    assert float(m.share.hidden(jnp.zeros(()))) == 0 and float(m.share.hidden(jnp.ones(()))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("share", SHARES)
def test_the_masked_bound_is_tight_and_the_uniform_one_is_a_bound(share):
    """Enumerated x0 and x, quadrature in log t; the entropy of the data is the limit."""
    entropy = -np.sum(LAW * np.log(LAW)) / D
    t_min = 1e-2
    nodes, weights = np.polynomial.legendre.leggauss(80)
    log_t = np.log(t_min) * (1 - nodes) / 2
    times = jnp.asarray(np.exp(log_t))
    weights = jnp.asarray(-np.log(t_min) / 2 * weights * np.exp(log_t))
    found = {}
    for source in mixture.SOURCES:
        m, every = world(source, share), jnp.asarray(states(world(source)))

        def expectation(integrand, t, m=m, every=every):
            """E over x0 and x_t of the mean over sites."""

            def at(x):
                out, p = logits(m, x, t), joint(m, x, t)
                values = jax.vmap(lambda x0: jnp.mean(integrand(m, out, x, t, x0)))(
                    jnp.asarray(VALUES)
                )
                return jnp.sum(jnp.where(p > 0, p * values, 0))

            return jnp.sum(jax.vmap(at)(every))

        jumps = jax.jit(jax.vmap(lambda t, e=expectation: e(mixture.bound, t)))(times)
        last = expectation(mixture.nats, times.min() * 0 + t_min)
        found[source] = float(jnp.sum(weights * jumps) + last)
    assert abs(found["masked"] - entropy) < 2e-4
    assert entropy + 0.01 < found["uniform"] < entropy + 0.5


@pytest.mark.parametrize("source", mixture.SOURCES)
def test_the_estimated_bound_agrees(source):
    """Its mean over the data is at least the entropy, and at the masked source equal to it."""
    m, n = world(source), 8000
    x0 = jnp.asarray(VALUES[np.random.default_rng(1).choice(V**D, n, p=LAW)])
    run = jax.jit(lambda k: flow_matching.bound(m, (D,), 1e-2, 8)(network(m), k, x0, None))
    found = run(KEY)
    np.testing.assert_allclose(found["nats"], found["jumps"] + found["reconstruction"], rtol=1e-5)
    entropy = -np.sum(LAW * np.log(LAW)) / D
    nats = np.asarray(found["nats"], np.float64)
    error = 4.5 * nats.std() / n**0.5
    assert nats.mean() > entropy - error
    assert source == "uniform" or nats.mean() < entropy + error


def test_leave_one_out_is_the_posterior_without_its_known_factor():
    m, plain = world("uniform", leave_one_out=True), world("uniform")
    t = jnp.asarray(0.6)
    for x in jnp.asarray([[0, 1], [2, 2]]):
        log_p = jax.nn.log_softmax(logits(plain, x, t))
        out = log_p - jnp.log(kernel(plain, t)[:, x].T)
        np.testing.assert_allclose(m.read(out, x, t), log_p, atol=1e-5)


def test_a_shown_site_is_known():
    m = world("masked")
    law = jnp.exp(m.read(jnp.zeros((D, V)), jnp.asarray([1, V]), jnp.asarray(0.5)))
    np.testing.assert_allclose(law, [[0, 1, 0], [1 / 3] * 3], atol=1e-6)


@pytest.mark.parametrize("weighting", mixture.GAPS)
@pytest.mark.parametrize("source", mixture.SOURCES)
def test_losses_are_least_at_the_posterior(source, weighting):
    """The gradient of the expected loss in the logits vanishes there, at every state."""
    m = world(source)
    path, t = mixture.path(m, (D,), weighting), jnp.asarray(0.5)

    @jax.jit
    def slope(x):
        p = joint(m, x, t)

        def loss(out):
            return jnp.sum(p * jax.vmap(lambda x0: path.gap(out, x, t, x0))(jnp.asarray(VALUES)))

        return jax.grad(loss)(logits(m, x, t)), jax.grad(loss)(jnp.zeros((D, V)))

    for x in jnp.asarray([[m.num_states - 1] * D, [0, m.num_states - 1]]):
        right, wrong = slope(x)
        assert float(jnp.abs(right).max()) < 1e-6 < 1e-3 < float(jnp.abs(wrong).max())


def test_steps_are_exact_for_a_fixed_posterior():
    """Two half steps turn a site as often as a whole one, and the last to 0 always."""
    m, n = world("masked", "cubic"), 40_000
    path = mixture.path(m, (1,))
    out = jnp.log(jnp.asarray([[0.2, 0.3, 0.5]]))
    step = jax.jit(jax.vmap(path.step, (0, None, 0, None, None)))
    x = jnp.full((n, 1), V)
    keys = jax.random.split(KEY, (3, n))
    once, half = step(keys[0], out, x, 1.0, 0.4), step(keys[1], out, x, 1.0, 0.7)
    twice = step(keys[2], out, half, 0.7, 0.4)
    for found in (once, twice):
        share = np.mean(np.asarray(found) == V)
        assert abs(share - 0.4**3) < 4.5 * math.sqrt(0.4**3 / n)
    assert not np.any(np.asarray(step(keys[0], out, x, 1.0, 0.0)) == V)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: mixture.mixture(3, mixture.power(), "ring"), "config.path.name='ring'"),
        (lambda: mixture.power(0.0), "config.path.power=0.0"),
        (lambda: world("masked", leave_one_out=True), "config.loss.head='leave_one_out'"),
        (lambda: mixture.path(world("masked"), (2,), "none"), "config.loss.weighting='none'"),
        (lambda: mixture.build({"share": "step"}), "config.path.share='step'"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
