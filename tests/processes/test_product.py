"""Products of processes: an Ornstein-Uhlenbeck process and a chain in closed form, and poses."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats
from scipy.spatial.transform import Rotation

from gmjax import generators
from gmjax.processes import chains, ctmc, schedules
from gmjax.processes.gaussian import vp
from gmjax.processes.product import product
from gmjax.processes.rotations import rotations
from gmjax.types import UserError

CLOCK = schedules.constant(2.0)
LINE = vp(CLOCK, (1,))
COIN = ctmc.process(ctmc.CTMC(chains.uniform(2), CLOCK), (1,))
MIXED = product({"x": LINE, "c": COIN})
POSES = product({"place": vp(CLOCK, (3,)), "turn": rotations(CLOCK)})
KEY = jax.random.key(0)
T = jnp.asarray(0.3)

# Data: a class c, and x ~ N(MEANS[c], STD^2) given it.
CHANCE, MEANS, STD = np.asarray([0.3, 0.7]), np.asarray([-1.5, 1.0]), 0.4


def state(x, c):
    return {"x": jnp.asarray([x], jnp.float32), "c": jnp.asarray([c], jnp.int32)}


def keep(t):
    """P(c_t = c_0)."""
    return 0.5 + 0.5 * np.exp(-2 * t)


def moments(t):
    """Of x_t given c_0: the means [2] and the variance."""
    alpha = np.exp(-2 * t)
    return MEANS * alpha**0.5, STD**2 * alpha + 1 - alpha


def components(x, t):
    """The joint law of (x_t, c_t) at x: [2], by the value of c_t."""
    alpha = jnp.exp(-2 * t)
    scale = jnp.sqrt(STD**2 * alpha + 1 - alpha)
    stay = 0.5 + 0.5 * alpha
    each = CHANCE * jax.scipy.stats.norm.pdf(x, MEANS * jnp.sqrt(alpha), scale)
    return jnp.stack([stay * each[0] + (1 - stay) * each[1], stay * each[1] + (1 - stay) * each[0]])


def exact_score(s, t):
    """The tree of d/dx log p and of p(x, y) / p(x, c) for both y."""
    log_p = lambda x: jnp.log(components(x, t))[s["c"][0]]
    p = components(s["x"][0], t)
    return {"x": jax.grad(log_p)(s["x"][0])[None], "c": (p / p[s["c"][0]])[None]}


def features(s):
    x, c = s["x"][0], s["c"][0].astype(jnp.float32)
    return jnp.stack([x, c, c * x, x**2])


def test_kernel_score_and_base_are_those_of_the_parts():
    start, now = state(0.8, 1), state(-0.2, 0)
    alpha = np.exp(-0.6)
    normal = stats.norm(0.8 * alpha**0.5, (1 - alpha) ** 0.5)
    expected = normal.logpdf(-0.2) + np.log(1 - keep(0.3))
    np.testing.assert_allclose(MIXED.log_prob(now, start, T), expected, rtol=1e-5)
    target = MIXED.target(start, now, T)
    slope = (0.8 * alpha**0.5 + 0.2) / (1 - alpha)
    np.testing.assert_allclose(target["x"], [slope], rtol=1e-5)
    np.testing.assert_allclose(target["c"], [[1, keep(0.3) / (1 - keep(0.3))]], rtol=1e-5)
    base = stats.norm.logpdf(-0.2) + np.log(0.5)
    np.testing.assert_allclose(MIXED.base.log_prob(now), base, rtol=1e-4)
    shapes = jax.tree.map(jnp.shape, MIXED.base.sample(KEY))
    assert shapes == {"x": (1,), "c": (1,)}
    assert set(MIXED.space) == {"x", "c"}
    assert MIXED.space["x"].dim == 1


def test_generator_in_closed_form():
    """(L f)(x, c) = -x f_x + f_xx + f(x, 1 - c) - f(x, c) at beta = 2."""
    f = lambda s: jnp.sin(s["x"][0]) * (1 + 2.0 * s["c"][0])
    x, c = 0.7, 1
    part = lambda c: 1 + 2.0 * c
    expected = (-x * np.cos(x) - np.sin(x)) * part(c) + np.sin(x) * (part(1 - c) - part(c))
    value = MIXED.generator.apply(f, state(x, c), T)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_the_reversal_is_that_of_the_joint_density():
    """Given its score tree, and given the density itself, one generator."""
    log_beta = lambda s, t: jnp.log(components(s["x"][0], t))[s["c"][0]]
    known = generators.reverse(MIXED.generator, log_beta)
    own = MIXED.reverse(exact_score)
    f = lambda s: features(s) @ jnp.asarray([0.3, -1.0, 0.8, 0.5])
    both = jax.jit(lambda s: (own.apply(f, s, T), known.apply(f, s, T)))
    for s in (state(0.4, 0), state(-1.1, 1)):
        np.testing.assert_allclose(*both(s), rtol=1e-4)


def test_phi_and_simple_are_sums_and_read_is_a_tree():
    s, start = state(-0.2, 0), state(0.8, 1)
    target, score = MIXED.target(start, s, T), exact_score(s, T)
    for name in ("phi", "simple"):
        pairs = (("x", LINE), ("c", COIN))
        each = [getattr(p, name)(s[k], T, target[k], score[k]) for k, p in pairs]
        np.testing.assert_allclose(getattr(MIXED, name)(s, T, target, score), sum(each), rtol=1e-6)
    out = {"x": jnp.asarray([0.5]), "c": jnp.asarray([[0.2, -0.3]])}
    read = MIXED.read(out, s, T)
    np.testing.assert_allclose(read["x"], LINE.read(out["x"], s["x"], T))
    np.testing.assert_allclose(read["c"], COIN.read(out["c"], s["c"], T))


def test_phi_is_that_of_the_generator():
    """f^-1 L f - L log f at f = q / beta; a chain's agrees in the mean over its own state."""
    start = state(0.8, 1)
    log_q = lambda s: MIXED.log_prob(s, start, T)
    log_f = lambda s: log_q(s) - jnp.log(components(s["x"][0], T))[s["c"][0]]

    @jax.jit
    def both(s):
        own = MIXED.phi(s, T, MIXED.target(start, s, T), exact_score(s, T))
        return jnp.exp(log_q(s)) * jnp.stack([own, generators.phi(MIXED.generator, log_f, s, T)])

    own, known = both(state(-0.2, 0)) + both(state(-0.2, 1))
    np.testing.assert_allclose(own, known, rtol=1e-4)


def test_the_reverse_process_lands_on_a_correlated_law():
    """From the exact law at t = 1 to t = 0.05: mean, class, their product and the square.

    Steps of 1 % of t bias the moments by less than a tenth of their standard errors, 0.005 to
    0.015; |z| < 4.5 in four means.
    """
    n, times = 10_000, jnp.geomspace(1.0, 0.05, 301)
    rng = np.random.default_rng(0)
    c0 = (rng.random(n) < CHANCE[1]).astype(int)
    x0 = MEANS[c0] + STD * rng.normal(size=n)
    data = {"x": jnp.asarray(x0[:, None], jnp.float32), "c": jnp.asarray(c0[:, None], jnp.int32)}
    back = MIXED.reverse(exact_score)

    @jax.jit
    def run(key, data):
        a, b = jax.random.split(key)
        start = jax.vmap(lambda k, s: MIXED.sample(k, s, jnp.ones(())))(
            jax.random.split(a, n), data
        )
        go = lambda k, s: generators.simulate(back, k, s, times)
        return jax.vmap(features)(jax.vmap(go)(jax.random.split(b, n), start))

    values = np.asarray(run(KEY, data), np.float64)
    means, variance = moments(0.05)
    one = np.asarray([1 - keep(0.05), keep(0.05)])  # P(c_t = 1 | c_0)
    exact = [CHANCE @ means, CHANCE @ one, CHANCE @ (one * means), CHANCE @ means**2 + variance]
    z = (values.mean(0) - exact) / (values.std(0) / n**0.5)
    assert np.abs(z).max() < 4.5
    assert abs(exact[2] - exact[0] * exact[1]) > 0.3, "the components are dependent"


def test_what_a_part_lacks_the_product_lacks():
    assert MIXED.velocity is None
    bare = product({"x": LINE, "c": COIN._replace(log_prob=None, phi=None)})
    assert bare.log_prob is None
    assert bare.phi is None
    assert bare.simple is not None
    with pytest.raises(UserError, match="at least"):
        product({})


POSE = {
    "place": jnp.asarray([0.5, -1.0, 0.2]),
    "turn": jnp.asarray(Rotation.random(random_state=2).as_matrix(), jnp.float32),
}


def test_a_pose_has_a_flow_whose_parts_see_all_of_it():
    def score(s, t):
        pull = jnp.sum(s["place"]) * t
        return {"place": -s["place"] * s["turn"][0, 0], "turn": pull * s["turn"] @ HAT}

    x = POSE
    flow = POSES.velocity(score)(x, T)
    whole = score(x, T)
    for name, part in (("place", vp(CLOCK, (3,))), ("turn", rotations(CLOCK))):
        alone = part.velocity(lambda y, t, name=name: whole[name])(x[name], T)
        np.testing.assert_allclose(flow[name], alone, rtol=1e-6)


HAT = jnp.asarray([[0.0, -0.3, 0.5], [0.3, 0.0, -1.0], [-0.5, 1.0, 0.0]])
ATOMS = {
    "x": jnp.asarray([[-1.0], [1.2]]),
    "c": jnp.asarray([[0], [1]], jnp.int32),
}
WEIGHTS = jnp.asarray([0.4, 0.6])


def f(s):
    return (1 + s["c"][0]) * jnp.sin(s["x"][0]) + 0.3 * s["x"][0] ** 2


START = jax.tree.map(lambda a: a[1], ATOMS)


def test_weak_step():
    assert abs(oracles.weak_step(MIXED.generator, f, START, T, KEY, n=100_000)) < oracles.Z


@pytest.mark.slow
def test_kolmogorov():
    assert abs(oracles.kolmogorov(MIXED, f, START, KEY)) < oracles.Z


@pytest.mark.slow
def test_composition():
    assert abs(oracles.composition(MIXED, f, START, KEY)) < oracles.Z


@pytest.mark.slow
def test_limit():
    """At B(1) = 14 what is left of the start is exp(-7), a third of the standard error."""
    clock = schedules.constant(14.0)
    coin = ctmc.process(ctmc.CTMC(chains.uniform(2), clock), (1,))
    both = product({"x": vp(clock, (1,)), "c": coin})
    assert abs(oracles.limit(both, f, START, KEY)) < oracles.Z


@pytest.mark.slow
def test_bound():
    clock = schedules.constant(14.0)
    coin = ctmc.process(ctmc.CTMC(chains.uniform(2), clock), (1,))
    both = product({"x": vp(clock, (1,)), "c": coin})
    tilt = lambda s, t: 0.6 * s["x"][0] * s["c"][0]
    exact, (z, gap) = oracles.bound(both, ATOMS, WEIGHTS, KEY, tilt, t_min=0.05, n=20_000)
    assert abs(exact[0]) < oracles.Z
    assert z > oracles.Z and gap > 0
