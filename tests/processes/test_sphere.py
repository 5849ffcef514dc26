"""Brownian motion on S^1, S^2 and S^3: the kernel it draws from, then the oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from gmjax.processes import sphere
from gmjax.processes.schedules import constant
from gmjax.spaces import calculus
from gmjax.spaces import sphere as spaces
from gmjax.types import UserError

ALL = {dim: sphere.sphere(constant(1.2), (dim + 1,)) for dim in (1, 2, 3)}
SLOW = pytest.mark.slow
DIMS = pytest.mark.parametrize("dim", list(ALL))
ATOMS = np.asarray([[1, 0.2, 0, 0.1], [-0.3, 1, -0.5, 0.4], [-0.6, -0.7, 1, -0.2]], np.float32)
WEIGHTS = jnp.asarray([0.2, 0.5, 0.3])


def atoms(dim):
    return jax.vmap(spaces.project)(jnp.asarray(ATOMS[:, : dim + 1]))


def height(x):
    """Smooth, without symmetry."""
    return jnp.tanh(2 * x[0] + x[1]) + 0.5 * x[-1] ** 2


def quadrature(rings=24, spokes=48):
    """Nodes [N, 3] and weights of the area of S^2, exact for polynomials of degree 47."""
    z, w = np.polynomial.legendre.leggauss(rings)
    a = 2 * np.pi * np.arange(spokes) / spokes
    r = np.sqrt(1 - z**2)[:, None]
    nodes = np.stack([r * np.cos(a), r * np.sin(a), z[:, None] + 0 * a], -1).reshape(-1, 3)
    return jnp.asarray(nodes), jnp.asarray(np.repeat(w, spokes) * 2 * np.pi / spokes)


@pytest.mark.slow
@DIMS
def test_generator_moves_the_kernel(dim):
    """d/dt q = L q, and target = grad log q, at a point, at the start and at its antipode."""
    process, space = ALL[dim], ALL[dim].space
    with jax.enable_x64(True):
        a = atoms(dim)[0].astype(jnp.float64)
        a, b = a / jnp.linalg.norm(a), spaces.project(atoms(dim)[1].astype(jnp.float64))

        @jax.jit
        @jax.vmap
        def sides(y, t):
            q = lambda y, t: jnp.exp(process.log_prob(y, a, t))
            slope = calculus.gradient(space, lambda y: process.log_prob(y, a, t), y)
            moved = process.generator.apply(lambda y: q(y, t), y, t)
            return (moved, process.target(a, y, t)), (jax.grad(q, 1)(y, t), slope)

        y, t = jnp.stack([b, a, -a] * 2), jnp.asarray([0.3] * 3 + [0.95] * 3)
        for left, right in zip(*sides(y, t), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
@DIMS
def test_draws_have_the_law_of_the_kernel(dim):
    """Kolmogorov-Smirnov of the angle and moments of one direction, 20000 draws in single
    precision: sqrt(n) D > 2.5 has probability 8e-6."""
    n, x0 = 20_000, atoms(dim)[1]
    process = sphere.sphere(constant(1.0), (dim + 1,))  # t is tau
    draws = jax.jit(lambda key, tau: oracles.draws(process, key, x0, tau, n))
    log_prob = jax.jit(jax.vmap(lambda y, tau: process.log_prob(y, x0, tau), (0, None)))
    e = spaces.project(spaces.tangent(x0, jnp.ones(dim + 1)))
    area = 2.0 if dim == 1 else np.exp(spaces.log_area(dim - 1))
    for i, tau in enumerate(np.float32([1e-3, 0.3, 1.5])):
        x = draws(jax.random.key(i), tau)
        theta = np.sort(jax.vmap(lambda y: spaces.angle(x0, y))(x))
        grid = np.linspace(0, min(np.pi, 7 * np.sqrt(tau)), 4001)
        middle = ((grid[1:] + grid[:-1]) / 2).astype(np.float32)
        p = np.exp(log_prob(np.cos(middle)[:, None] * x0 + np.sin(middle)[:, None] * e, tau))
        mass = p * area * np.sin(middle) ** (dim - 1) * np.diff(grid)
        assert np.sum(mass) == pytest.approx(1, abs=1e-4)
        u = np.interp(theta, grid, np.append(0, np.cumsum(mass)))
        assert np.sqrt(n) * np.abs(u - (np.arange(n) + 0.5) / n).max() < 2.5
        # x's part along e over its length is a coordinate of a uniform point of S^{n-1}.
        across = np.asarray(x) - np.asarray(x @ x0)[:, None] * np.asarray(x0)
        side = across @ np.asarray(e) / np.maximum(np.linalg.norm(across, axis=1), 1e-9)
        assert abs(np.mean(side)) / np.std(side) * np.sqrt(n) < oracles.Z
        gap = side**2 - 1 / dim
        assert dim == 1 or abs(np.mean(gap)) / np.std(gap) * np.sqrt(n) < oracles.Z


def test_chapman_kolmogorov_by_quadrature():
    process = ALL[2]
    with jax.enable_x64(True):
        nodes, weights = quadrature()
        a, b = nodes[100], nodes[700]

        @jax.jit
        def sides(s, t):
            first = jax.vmap(lambda y: process.log_prob(y, a, s))(nodes)
            then = jax.vmap(lambda y: process.log_prob(b, y, t))(nodes)
            whole = jnp.exp(process.log_prob(b, a, s + t))
            return (
                jnp.sum(weights * jnp.exp(first)),
                jnp.sum(weights * jnp.exp(first + then)),
                whole,
            )

        total, two, one = sides(jnp.asarray(0.2), jnp.asarray(0.3))
        assert float(total) == pytest.approx(1, abs=1e-6)
        assert float(two) == pytest.approx(float(one), rel=1e-6)


@pytest.mark.parametrize("dim", [pytest.param(1, marks=SLOW), 2, pytest.param(3, marks=SLOW)])
@pytest.mark.slow
def test_forward_oracles(dim):
    """|z| < 4.5: 7e-6 for a correct program."""
    process, x0, t, n = ALL[dim], atoms(dim)[1], jnp.asarray(0.5), 10_000
    f, keys = height, jax.random.split(jax.random.key(1), 4)
    assert abs(oracles.weak_step(process.generator, f, x0, t, keys[0], n=n)) < oracles.Z
    assert abs(oracles.kolmogorov(process, f, x0, keys[1], n=n)) < oracles.Z
    assert abs(oracles.composition(process, f, x0, keys[2], n=n)) < oracles.Z
    # At tau = 20 the law is uniform but for 2 exp(-10).
    late = sphere.sphere(constant(20.0), (dim + 1,))
    assert abs(oracles.limit(late, f, x0, keys[3], n=n)) < oracles.Z


@pytest.mark.slow
@pytest.mark.parametrize("dim", [pytest.param(2, marks=SLOW), 3])
def test_reversal(dim):
    """100 steps: the bias of the walk is below the standard error of 4000 draws."""
    args = (atoms(dim), WEIGHTS, jax.random.key(2), jnp.linspace(1, 0.05, 101))
    assert abs(oracles.reversal(ALL[dim], height, *args, n=4_000)) < oracles.Z


@pytest.mark.slow
def test_adjointness():
    with jax.enable_x64(True):
        f, g = height, lambda x: jnp.exp(x[0] - 0.4 * x[2])
        sides = jax.jit(lambda *args: oracles.adjointness(ALL[2].generator, f, g, *args))
        left, right = sides(*quadrature(), jnp.asarray(0.6))
        assert float(left) == pytest.approx(float(right), rel=1e-8)


@SLOW
def test_gradients_of_the_three_losses():
    with jax.enable_x64(True):
        log_beta = lambda p, x, t: p[0] * x[0] + p[1] * x[1] * x[2] * t
        data = jax.vmap(spaces.project)(atoms(2).astype(jnp.float64))
        args = (data, WEIGHTS.astype(jnp.float64), *quadrature(), jnp.asarray(0.6))
        three = oracles.gradients(ALL[2], log_beta, jnp.asarray([1.0, 0.4]), *args)
        implicit, explicit, denoising = three
        np.testing.assert_allclose(implicit, explicit, rtol=1e-6)
        np.testing.assert_allclose(denoising, explicit, rtol=1e-6)


@SLOW
def test_bound():
    """On S^3: at the exact score the bound is the entropy, at tau = 12 with a uniform end; a tilt
    costs."""
    args = (sphere.sphere(constant(12.0), (4,)), atoms(3), WEIGHTS, jax.random.key(3))
    exact, (z, gap) = oracles.bound(*args, lambda x, t: x[0], n=4_000, t_min=0.02)
    assert abs(exact[0]) < oracles.Z
    assert z > oracles.Z and gap > 0


@pytest.mark.slow
@DIMS
def test_never_nan(dim):
    process, x = ALL[dim], atoms(dim)[1]

    @jax.jit
    @jax.vmap
    def both(y, t):
        value = lambda y: process.log_prob(y, x, t) + jnp.sum(process.target(x, y, t))
        return *jax.value_and_grad(value)(y), process.sample(jax.random.key(0), y, t)

    y = jnp.stack([x, -x, atoms(dim)[0]])
    for t in (0.0, 1e-6, 0.1, 1.0):
        assert all(np.isfinite(v).all() for v in both(y, jnp.full(3, t)))


def test_score_near_the_antipode_in_single_precision():
    """Points whose angle from x0 is pi - 1e-3: the score to 1e-4 of double precision's."""
    process = sphere.sphere(constant(1.0), (3,))
    x0 = np.asarray([0.6, 0.0, 0.8])
    e = np.asarray([0.8, 0.0, -0.6])
    x = np.float32([np.cos(a) * x0 + np.sin(a) * e for a in np.pi - np.asarray([1e-3, 1e-2, 0.1])])
    t = np.float32([1e-3, 0.05, 0.9])
    scores = jax.jit(jax.vmap(process.target, (None, 0, 0)))
    ours = np.asarray(scores(np.float32(x0), x, t))
    with jax.enable_x64(True):
        unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)
        true = np.asarray(
            scores(unit(np.float64(np.float32(x0))), unit(np.float64(x)), np.float64(t))
        )
    error = np.linalg.norm(ours - true, axis=1) / np.linalg.norm(true, axis=1)
    assert error.max() < 1e-4


def test_read_and_bad_shapes():
    process, x = ALL[2], atoms(2)[0]
    out, t = jnp.asarray([0.3, -1.0, 2.0]), jnp.asarray(0.5)
    expected = (out - x * (x @ out)) / np.sqrt(1 - np.exp(-0.6))
    np.testing.assert_allclose(process.read(out, x, t), expected, rtol=1e-5)
    for shape in ((5,), (1,), (2, 3)):
        with pytest.raises(UserError, match="valid: .2,., .3,., .4,."):
            sphere.sphere(constant(), shape)
