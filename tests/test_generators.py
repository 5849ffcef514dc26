"""The calculus of generators, against closed forms on R^2, a finite set and their products."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from gmjax import generators
from gmjax.spaces.euclidean import euclidean

PLANE = euclidean(2)
KEY = jax.random.key(0)
T = jnp.asarray(0.3)
X = jnp.asarray([0.4, -0.7])
MATRIX = jnp.asarray([[0.3, -0.5], [0.2, 0.1]])


def drift(x, t):
    return MATRIX @ x + t


def columns(x, t):
    """A state-dependent noise of three driving motions."""
    return jnp.stack(
        [
            jnp.stack([1 + 0.2 * x[0], 0.3 * x[1]]),
            jnp.stack([0.1 * x[1], 0.5 + 0.2 * jnp.sin(x[0])]),
            jnp.stack([0.3, -0.2 * x[0]]),
        ]
    )


def f(x):
    return jnp.sin(x[0]) * x[1] + x[1] ** 2


def g(x):
    return jnp.exp(-jnp.sum((x - 0.2) ** 2))


def wave(x):
    return jnp.exp(-0.5 * jnp.sum(x**2)) * (1 + x[0])


ROUGH = generators.diffusion(PLANE, drift, columns)
PLAIN = generators.diffusion(PLANE, drift, lambda x, t: 1 + t + 0.1 * x[0] ** 2)
FLOW = generators.flow(PLANE, drift)

RATES = jnp.asarray([[0.0, 1.0, 0.5], [0.3, 0.0, 0.7], [0.2, 1.1, 0.0]])
CHAIN = generators.jump(lambda x, t: (1 + t) * RATES[x], lambda x, t: (1 + t) * RATES[:, x].T)
TABLE = jnp.asarray([[0.3, -1.0, 0.5], [2.0, 0.1, -0.4], [1.2, -0.6, 0.7]])


def grid(size=61, width=6.0):
    """The trapezoidal rule on a square; spectrally exact for what decays inside it."""
    axis = jnp.linspace(-width, width, size)
    nodes = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    return nodes, jnp.full(len(nodes), (axis[1] - axis[0]) ** 2)


def dense(x, t, noise, h):
    """b . grad h + tr(sigma sigma^T Hess h) / 2, with the Hessian formed."""
    s = noise(x, t)
    a = s.T @ s if s.ndim else s**2 * jnp.eye(2)
    return drift(x, t) @ jax.grad(h)(x) + 0.5 * jnp.sum(a * jax.hessian(h)(x))


@pytest.mark.parametrize("name", ["rough", "plain"])
def test_a_diffusion_is_drift_and_half_the_traced_hessian(name):
    generator = {"rough": ROUGH, "plain": PLAIN}[name]
    noise = {"rough": columns, "plain": lambda x, t: 1 + t + 0.1 * x[0] ** 2}[name]
    np.testing.assert_allclose(generator.apply(f, X, T), dense(X, T, noise, f), rtol=1e-5)


@pytest.mark.parametrize("generator", [ROUGH, PLAIN, FLOW, generators.superpose(ROUGH, FLOW)])
def test_the_adjoint_is_the_adjoint_on_the_plane(generator):
    left, right = jax.jit(
        lambda: oracles.adjointness(generator, lambda x: f(x) * g(x), wave, *grid(), T)
    )()
    np.testing.assert_allclose(left, right, rtol=2e-5)


def test_the_adjoint_is_the_adjoint_on_a_finite_set():
    nodes = jnp.stack(jnp.meshgrid(jnp.arange(3), jnp.arange(3), indexing="ij"), -1).reshape(-1, 2)
    h = lambda x: TABLE[x[0], x[1]]
    k = lambda x: TABLE[x[1], x[0]] ** 2
    left, right = oracles.adjointness(CHAIN, h, k, nodes, jnp.ones(9), T)
    np.testing.assert_allclose(left, right, rtol=1e-5)


@pytest.mark.parametrize("generator", [ROUGH, generators.superpose(PLAIN, FLOW)])
def test_a_step_is_weakly_of_first_order(generator):
    assert abs(oracles.weak_step(generator, f, X, T, KEY)) < oracles.Z


def test_a_flow_steps_along_its_velocity():
    dt = 1e-2
    rates = [(f(FLOW.step(KEY, X, T, h)) - f(X)) / h for h in (dt, dt / 2)]
    # The extrapolation's own error is of order dt^2 times the third derivative.
    np.testing.assert_allclose(2 * rates[1] - rates[0], FLOW.apply(f, X, T), atol=1e-3)


def test_a_jump_steps_by_its_rates():
    h = lambda x: TABLE[x[0], x[1]]
    assert abs(oracles.weak_step(CHAIN, h, jnp.asarray([0, 2]), T, KEY)) < oracles.Z


@pytest.mark.slow
@pytest.mark.parametrize("generator", [ROUGH, PLAIN, FLOW, generators.superpose(ROUGH, FLOW)])
def test_the_reversal_is_its_definition(generator):
    """K h = beta^-1 L*(beta h) - h beta^-1 L* beta, from the adjoint alone."""
    log_beta = lambda x, t: -0.5 * jnp.sum(x**2) + 0.3 * jnp.sin(x[0] + t)
    beta = lambda x: jnp.exp(log_beta(x, T))
    reverse = generators.reverse(generator, log_beta)

    def definition(h, x):
        both = generators.adjoint(generator, lambda y: beta(y) * h(y), x, T)
        return (both - h(x) * generators.adjoint(generator, beta, x, T)) / beta(x)

    np.testing.assert_allclose(reverse.apply(f, X, T), definition(f, X), rtol=1e-4)


def test_the_reversal_of_a_chain_is_its_definition():
    log_beta = lambda x, t: TABLE[x[1], x[0]] + t
    h = lambda x: TABLE[x[0], x[1]]
    beta = lambda x: jnp.exp(log_beta(x, T))
    reverse = generators.reverse(CHAIN, log_beta)
    for a in range(3):
        x = jnp.asarray([a, 1])
        both = generators.adjoint(CHAIN, lambda y: beta(y) * h(y), x, T)
        rest = h(x) * generators.adjoint(CHAIN, beta, x, T)
        np.testing.assert_allclose(reverse.apply(h, x, T), (both - rest) / beta(x), rtol=1e-4)
    back = generators.reverse(reverse, log_beta)
    np.testing.assert_allclose(back.apply(h, x, T), CHAIN.apply(h, x, T), rtol=1e-4)


def test_a_product_acts_reverses_and_steps_by_parts():
    both = generators.product({"x": PLAIN, "c": CHAIN})
    state = {"x": X, "c": jnp.asarray([0, 2])}
    h = lambda s: f(s["x"]) * TABLE[s["c"][0], s["c"][1]]
    expected = PLAIN.apply(f, X, T) * TABLE[0, 2] + f(X) * CHAIN.apply(
        lambda c: TABLE[c[0], c[1]], state["c"], T
    )
    np.testing.assert_allclose(both.apply(h, state, T), expected, rtol=1e-5)
    log_beta = lambda s, t: -0.5 * jnp.sum((s["x"] - TABLE[s["c"][0], s["c"][1]]) ** 2)
    beta = lambda s: jnp.exp(log_beta(s, T))
    mixed = generators.adjoint(both, lambda s: beta(s) * h(s), state, T)
    rest = h(state) * generators.adjoint(both, beta, state, T)
    reverse = generators.reverse(both, log_beta)
    np.testing.assert_allclose(reverse.apply(h, state, T), (mixed - rest) / beta(state), rtol=1e-4)
    assert abs(oracles.weak_step(reverse, h, state, T, KEY)) < oracles.Z


def test_a_time_change_multiplies():
    rate = lambda t: 2 + t
    fast = generators.scale(ROUGH, rate)
    np.testing.assert_allclose(fast.apply(f, X, T), rate(T) * ROUGH.apply(f, X, T), rtol=1e-6)
    np.testing.assert_allclose(
        generators.adjoint(fast, g, X, T), rate(T) * generators.adjoint(ROUGH, g, X, T), rtol=1e-6
    )
    assert abs(oracles.weak_step(fast, f, X, T, KEY, dt=0.01)) < oracles.Z


def test_carre_du_champ_and_phi_of_a_diffusion():
    s = columns(X, T)
    slope = lambda h: s @ jax.grad(h)(X)
    gamma = generators.carre_du_champ(ROUGH, f, g, X, T)
    np.testing.assert_allclose(gamma, 0.5 * slope(f) @ slope(g), rtol=1e-4)
    np.testing.assert_allclose(generators.phi(ROUGH, f, X, T), 0.5 * slope(f) @ slope(f), rtol=1e-4)


def test_phi_of_a_chain_and_its_definition():
    x = jnp.asarray([0, 2])
    log_f = lambda x: TABLE[x[0], x[1]]
    value = lambda x: jnp.exp(log_f(x))
    definition = CHAIN.apply(value, x, T) / value(x) - CHAIN.apply(log_f, x, T)
    np.testing.assert_allclose(generators.phi(CHAIN, log_f, x, T), definition, rtol=1e-4)


def test_a_jump_kernel_on_a_continuous_space_by_quadrature():
    """Jumps x -> y at rate lambda N(y; a x, 1): L f = lambda (E f(a x + Z) - f(x))."""
    points, weights = np.polynomial.hermite_e.hermegauss(16)
    points, weights = jnp.asarray(points), jnp.asarray(weights / np.sqrt(2 * np.pi))
    line = generators.jumps(
        lambda x, t: (0.5 * x + points[:, None], 3.0 * weights),
    )
    x = jnp.asarray([0.8])
    h = lambda y: y[0] ** 2
    np.testing.assert_allclose(line.apply(h, x, T), 3 * (0.16 + 1 - 0.64), rtol=1e-4)
    assert abs(oracles.weak_step(line, h, x, T, KEY)) < oracles.Z


def test_without_an_adjoint_the_error_says_what_to_give():
    alone = generators.jump(lambda x, t: RATES[x])
    for make in (
        lambda: generators.adjoint(alone, lambda x: 1.0, jnp.asarray([0]), T),
        lambda: generators.reverse(alone, lambda x, t: 0.0),
        lambda: generators.reverse(generators.superpose(alone, CHAIN), lambda x, t: 0.0),
    ):
        with pytest.raises(ValueError, match="rates_in"):
            make()


def test_simulate_runs_forward_and_backward():
    """An Ornstein-Uhlenbeck path and its reversal: Gaussian moments at both ends."""
    line = euclidean(1)
    ou = generators.diffusion(line, lambda x, t: -x, lambda x, t: jnp.sqrt(2.0))
    mean, variance = lambda t: 2 * jnp.exp(-t), lambda t: 1 - 0.75 * jnp.exp(-2 * t)
    log_p = lambda x, t: -0.5 * (x[0] - mean(t)) ** 2 / variance(t)
    n, times = 20_000, jnp.linspace(0, 1, 201)
    keys = jax.random.split(KEY, n)
    start = 2 + 0.5 * jax.random.normal(KEY, (n, 1))
    run = jax.jit(
        lambda g, k, x, s: jax.vmap(lambda k, x: generators.simulate(g, k, x, s))(k, x),
        static_argnums=0,
    )
    end = run(ou, keys, start, times)
    back = run(
        generators.reverse(ou, log_p), jax.random.split(jax.random.key(1), n), end, times[::-1]
    )
    # Standard errors .007 and .01; Euler's bias of the variance is of order dt = .005.
    assert abs(float(end.mean() - mean(1.0))) < 4.5 * 0.007 + 0.005
    assert abs(float(end.var() - variance(1.0))) < 4.5 * 0.01 + 0.01
    assert abs(float(back.mean() - 2)) < 4.5 * 0.0036 + 0.01
    assert abs(float(back.var() - 0.25)) < 4.5 * 0.0025 + 0.01
