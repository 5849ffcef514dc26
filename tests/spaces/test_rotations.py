"""SO(3) against scipy, pymanopt, finite differences and moments of Haar's law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from gmjax.spaces import calculus, rotations

SPACE = rotations.rotations()
RNG = np.random.default_rng(0)
CUT = np.pi


def vectors(angles, seed=0):
    """Rotation vectors of the given angles about random axes: [N, 3]."""
    axes = np.random.default_rng(seed).normal(size=(len(angles), 3))
    return axes / np.linalg.norm(axes, axis=1, keepdims=True) * np.asarray(angles)[:, None]


ANGLES = np.concatenate(
    [[0, 1e-9, 1e-5, 1e-3, 0.2, 0.32], np.linspace(0.4, 3, 20), CUT - 0.1 ** np.arange(1, 8)]
)
W = vectors(ANGLES)
X = Rotation.random(len(W), random_state=1).as_matrix()
V = X @ np.stack([np.cross(np.eye(3), w) for w in W])  # hat(w)


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.slow
def test_exp_and_log_agree_with_scipy(double):
    own = jax.jit(jax.vmap(rotations.exp))(W)
    np.testing.assert_allclose(own, Rotation.from_rotvec(W).as_matrix(), atol=1e-14)
    np.testing.assert_allclose(own[8], expm(np.cross(np.eye(3), W[8])), atol=1e-14)
    back = jax.jit(jax.vmap(rotations.log))(own)
    np.testing.assert_allclose(back, W, atol=1e-13)
    turned = Rotation.random(200, random_state=3)
    np.testing.assert_allclose(
        jax.vmap(rotations.log)(turned.as_matrix()), turned.as_rotvec(), atol=1e-13
    )


def test_geometry_agrees_with_pymanopt(double):
    """Pymanopt's tangent vectors are X^T v and its metric is Frobenius', twice ours."""
    other = pytest.importorskip("pymanopt.manifolds").SpecialOrthogonalGroup(3)
    y = Rotation.random(len(X), random_state=4).as_matrix()
    u = RNG.normal(size=X.shape)

    def geometry(x, y, u, v):
        to = SPACE.log(x, y)
        return {
            "exp": SPACE.exp(x, v),
            "log": to,
            "inner": SPACE.inner(x, v, to),
            "distance": calculus.distance(SPACE, x, y),
            "tangent": SPACE.tangent(x, u + v),
        }

    ours = jax.jit(jax.vmap(geometry))(X, y, u, V)
    for i in range(len(X)):
        v = X[i].T @ V[i]
        np.testing.assert_allclose(ours["exp"][i], other.exp(X[i], v), atol=1e-6)
        to = other.log(X[i], y[i])
        np.testing.assert_allclose(X[i].T @ ours["log"][i], to, atol=1e-6)
        np.testing.assert_allclose(
            ours["inner"][i], other.inner_product(X[i], v, to) / 2, atol=1e-6
        )
        np.testing.assert_allclose(ours["distance"][i], other.dist(X[i], y[i]) / 2**0.5, atol=1e-6)
        skew = X[i].T @ ours["tangent"][i]
        np.testing.assert_allclose(skew, -skew.T, atol=1e-14)


def test_the_tangent_part_is_the_orthogonal_projection(double):
    x, u = X[10], RNG.normal(size=(3, 3))
    part = SPACE.tangent(x, u)
    for e in SPACE.frame(x):
        np.testing.assert_allclose(SPACE.inner(x, u - part, e), 0, atol=1e-14)
    np.testing.assert_allclose(SPACE.tangent(x, part), part, atol=1e-14)


def test_round_trips_in_single_precision():
    """Entries carry rounding 6e-8, which moves the angle by as much at any angle."""
    angles = np.concatenate([10.0 ** np.arange(-6, 0), np.linspace(0.2, CUT - 1e-3, 200)])
    w = jnp.asarray(vectors(angles), jnp.float32)
    x = jnp.asarray(Rotation.random(len(w), random_state=2).as_matrix(), jnp.float32)
    v = jax.vmap(lambda x, w: rotations.compose(x, rotations.hat(w)))(x, w)
    back = jax.jit(jax.vmap(lambda x, v: SPACE.log(x, SPACE.exp(x, v))))(x, v)
    np.testing.assert_allclose(back, v, atol=3e-6)


@pytest.mark.slow
def test_no_gradient_is_nan_at_the_same_point_or_at_the_angle_pi():
    """Of exp at zero, of log at zero and at pi, to second order."""
    eye = jnp.eye(3)
    half_turns = [np.diag([1, -1, -1]), np.diag([-1, 1, -1]), np.diag([-1, -1, 1])]
    half_turns.append(Rotation.from_rotvec(CUT * np.ones(3) / 3**0.5).as_matrix())
    ends = jnp.stack([eye, *map(jnp.asarray, half_turns)]).astype(jnp.float32)
    weights = jnp.asarray(np.arange(9).reshape(3, 3), jnp.float32)
    to = lambda y: jnp.sum(jnp.sin(SPACE.log(eye, y)) * weights)
    far = lambda y: calculus.distance(SPACE, eye, y)
    move = lambda v: jnp.sum(SPACE.exp(eye, v) * weights)
    fix = lambda y: jnp.sum(SPACE.project(y) * weights)
    # Two derivatives along a fixed direction: the second order at the cost of a Jacobian's row.
    second = lambda f: lambda y: jax.grad(lambda z: jax.jvp(f, (z,), (weights,))[1])(y)
    derivatives = jax.jit(
        jax.vmap(lambda y: (second(to)(y), jax.grad(far)(y), second(move)(SPACE.log(eye, y))))
    )
    for g in derivatives(ends):
        assert np.isfinite(g).all()
    broken = jnp.stack([eye, jnp.zeros((3, 3)), -eye, jnp.ones((3, 3))])
    assert np.isfinite(jax.jit(jax.vmap(jax.grad(fix)))(broken)).all()


def test_log_differentiates_to_all_orders_at_the_same_point(double):
    """log(exp(w)) = w has a unit Jacobian and no second derivative."""
    through = lambda w: rotations.log(rotations.exp(w))
    w = jnp.asarray([[0, 0, 0], [1e-5, 0, 0], [0.1, 0.2, -0.05], [1.0, 2.0, -1.0]])
    first = jax.vmap(jax.jacfwd(through))
    second = jax.vmap(jax.jacfwd(jax.jacfwd(through)))
    one, two = jax.jit(lambda w: (first(w), second(w)))(w)
    np.testing.assert_allclose(one, np.broadcast_to(np.eye(3), (4, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(two, 0, atol=1e-11)


@pytest.mark.slow
def test_projection_finds_the_nearest_rotation(double):
    """The nearest orthogonal matrix comes from the singular vectors."""
    near = X + 0.05 * RNG.normal(size=X.shape)
    u, _, v = np.linalg.svd(near)
    own = jax.jit(jax.vmap(SPACE.project))(near)
    np.testing.assert_allclose(own, u @ v, atol=1e-12)
    np.testing.assert_allclose(jax.vmap(SPACE.project)(X), X, atol=1e-14)
    broken = jax.vmap(SPACE.project)(np.stack([np.zeros((3, 3)), -np.eye(3), np.ones((3, 3))]))
    assert SPACE.check(np.asarray(broken)) == ""


def test_the_laplacian_and_the_divergence_of_known_functions(double):
    """Entries of R have spin one: Delta R = -2 R. Left-invariant fields have no divergence."""
    x, weights = X[12], RNG.normal(size=(3, 3))
    f = lambda y: jnp.sum(weights * y)
    laplacian = jax.jit(lambda: calculus.laplacian(SPACE, f, x))
    np.testing.assert_allclose(laplacian(), -2 * f(x), rtol=1e-12)
    field = lambda y: f(y) * rotations.compose(y, rotations.hat(jnp.asarray([0.3, -1.0, 0.4])))
    slope = calculus.derivative(f, x, field(x) / f(x))
    np.testing.assert_allclose(calculus.divergence(SPACE, field, x), slope, rtol=1e-12)
    # The character of spin two has eigenvalue -l(l + 1) = -6.
    character = lambda y: jnp.trace(y) ** 2 - jnp.trace(y) - 1
    laplacian = jax.jit(lambda: calculus.laplacian(SPACE, character, x))
    np.testing.assert_allclose(laplacian(), -6 * character(x), rtol=1e-12)


def test_the_volume_by_quadrature_in_the_tangent_space(double):
    """The Jacobian of exp is (2 sin(a/2) / a)^2, by derivatives; its integral over the ball is
    8 pi^2, and the uniform density is its inverse."""

    def jacobian(a):
        w = a * jnp.asarray([0.6, 0.0, 0.8])
        pull = lambda u: rotations.vee(rotations.exp(w).T @ jax.jvp(rotations.exp, (w,), (u,))[1])
        return jnp.abs(jnp.linalg.det(jax.vmap(pull)(jnp.eye(3))))

    nodes, weights = np.polynomial.legendre.leggauss(24)
    a = CUT * (nodes + 1) / 2
    jacobians = jax.jit(jax.vmap(jacobian))(a)
    np.testing.assert_allclose(jacobians, (2 * np.sin(a / 2) / a) ** 2, rtol=1e-10)
    volume = np.sum(weights * CUT / 2 * 4 * np.pi * a**2 * jacobians)
    np.testing.assert_allclose(volume, rotations.VOLUME, rtol=1e-12)
    np.testing.assert_allclose(np.exp(SPACE.uniform.log_prob(X[0])) * volume, 1, rtol=1e-12)


def test_uniform_draws_are_haar():
    """Moments against Haar's: E R_ij = 0 and E R_ij R_kl = delta delta / 3, E tr^2 = 1.

    |z| < 5 over 55 means is passed by a correct sampler but for probability 3e-5.
    """
    n = 40_000
    x = np.asarray(jax.jit(jax.vmap(SPACE.uniform.sample))(jax.random.split(jax.random.key(0), n)))
    assert SPACE.check(x[:1000]) == ""
    flat = x.reshape(n, 9)
    pairs = np.stack([flat[:, i] * flat[:, j] for i in range(9) for j in range(i, 9)], 1)
    expected = np.asarray([float(i == j) / 3 for i in range(9) for j in range(i, 9)])
    for values, mean in ((flat, np.zeros(9)), (pairs, expected)):
        z = (values.mean(0) - mean) / (values.std(0) / n**0.5)
        assert np.abs(z).max() < 5
    fixed = x @ np.asarray(X[3], np.float32)
    angle = lambda r: np.arccos(np.clip((np.trace(r, axis1=1, axis2=2) - 1) / 2, -1, 1))
    for a in (angle(x), angle(fixed)):
        pit = (a - np.sin(a)) / np.pi
        # Kolmogorov's distance exceeds 2.3 / sqrt(n) with probability 5e-5.
        grid = np.arange(n) / n
        assert np.abs(np.sort(pit) - grid).max() < 2.3 / n**0.5


def test_noise_is_standard_in_the_frame():
    n, x = 40_000, jnp.asarray(X[5], jnp.float32)
    keys = jax.random.split(jax.random.key(1), n)
    v = jax.jit(jax.vmap(lambda k: SPACE.noise(k, x)))(keys)
    parts = np.asarray(
        jax.vmap(lambda v: jax.vmap(lambda e: SPACE.inner(x, v, e))(SPACE.frame(x)))(v)
    )
    np.testing.assert_allclose(jax.vmap(lambda v: SPACE.tangent(x, v))(v[:10]), v[:10], atol=1e-5)
    # Standard errors .005 and .007 at most; 9 means at |z| < 4.5.
    assert np.abs(parts.mean(0)).max() < 4.5 * 0.005
    assert np.abs(parts.T @ parts / n - np.eye(3)).max() < 4.5 * 0.0071


def test_what_is_no_rotation_is_named():
    good = X.astype(np.float32)
    assert SPACE.check(good) == ""
    bent, mirrored, broken = good.copy(), good.copy(), good.copy()
    bent[4, 0, 0] += 0.01
    mirrored[7] *= -1
    broken[2, 1, 1] = np.nan
    assert "row 4" in SPACE.check(bent) and "R^T R" in SPACE.check(bent)
    assert "row 7" in SPACE.check(mirrored) and "determinant" in SPACE.check(mirrored)
    assert "finite" in SPACE.check(broken)
    assert "(4,)" in SPACE.check(np.ones((5, 4))) and "(3, 3)" in SPACE.check(np.ones((5, 4)))
    assert SPACE.embed(jnp.eye(3)).shape == (9,)
