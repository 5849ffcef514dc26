"""Every exact law against quadrature, derivatives and its own draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from gmjax.paths.gaussian import PATHS, GaussianPath, variance_preserving
from gmjax.paths.heads import HEADS, denoised
from gmjax.processes import schedules
from gmjax.targets import TARGETS, laws, mixtures, products
from gmjax.types import UserError

RNG = np.random.default_rng(0)
FULL = np.array([[[0.5, 0.2], [0.2, 0.3]], [[0.1, 0.0], [0.0, 0.6]], [[0.2, -0.1], [-0.1, 0.2]]])
CENTRES = np.array([[1.0, 0.5], [-1.2, 0.3], [0.2, -1.5]])
WEIGHTS = np.array([0.5, 0.2, 0.3])
LAWS = {
    "gaussian": TARGETS["gaussian"]([0.3, -0.7], [[0.5, 0.3], [0.3, 0.4]]),
    "gaussian_diagonal": TARGETS["gaussian"]([0.3, -0.7, 0.1], [0.5, 0.0, 2.0]),
    "subspace": TARGETS["subspace"](RNG.normal(size=(4, 2)), 0.2),
    "mixture": TARGETS["mixture"](WEIGHTS, CENTRES, FULL),
    "mixture_isotropic": TARGETS["mixture"](WEIGHTS, CENTRES, [0.3, 0.1, 0.2]),
    "two_point": TARGETS["two_point"](3, -1.0, 1.5, 0.3),
    "mixture_product": TARGETS["mixture_product"](2, [0.4, 0.6], [[-1, 1], [0, 2]], [0.3, 0.5]),
    "sphere": TARGETS["sphere"](3, 1.3),
    "sphere_circle": TARGETS["sphere"](2, 0.8),
    "sphere_points": TARGETS["sphere"](1, 1.1),
}
LEVELS = [(1.0, 0.4), (0.7, 0.7), (0.1, 1.0), (1.0, 6.0)]  # (alpha, sigma)
DENSE = ("gaussian", "mixture", "mixture_isotropic", "mixture_product")  # with a density in R^2


def test_every_target_is_tested():
    assert {name for name in TARGETS if name in LAWS} == set(TARGETS)


def noised(law, alpha, sigma, n=5, seed=1):
    keys = jax.random.split(jax.random.key(seed), 2)
    x0 = jax.vmap(law.sample)(jax.random.split(keys[0], n))
    return alpha * x0 + sigma * jax.random.normal(keys[1], x0.shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_score_denoiser_and_covariance_are_derivatives(name):
    """score = grad log p; Tweedie; alpha / sigma^2 Cov = the denoiser's Jacobian."""
    law = LAWS[name]
    with jax.enable_x64(True):

        @jax.jit
        @jax.vmap
        def errors(x, a, s):
            score = jax.grad(law.log_prob)(x, a, s)
            covariance = law.posterior(x, a, s)
            matrix = laws.dense(covariance)
            v = jnp.sin(jnp.arange(law.dim) + 1.0)
            return (
                law.score(x, a, s) - score,
                a * law.denoiser(x, a, s) - x - s**2 * score,
                a / s**2 * matrix - jax.jacfwd(law.denoiser)(x, a, s),
                laws.times(covariance, v) - matrix @ v,
                laws.trace(covariance) - jnp.trace(matrix),
                laws.square_trace(covariance) - jnp.sum(matrix**2),
            )

        a, s = (jnp.repeat(c, 5) for c in jnp.asarray(LEVELS).T)
        x = jnp.concatenate([noised(law, *level) for level in LEVELS])
        for error in errors(x, a, s):
            np.testing.assert_allclose(error, 0, atol=1e-10)


def polar(law):
    """Atoms and weights that average smooth functions over a law exactly, to rounding."""
    if law is LAWS["sphere_points"]:
        return np.array([[1.1], [-1.1]]), np.full(2, 0.5)
    if law is LAWS["sphere_circle"]:
        angle = np.arange(400) * 2 * np.pi / 400
        return 0.8 * np.stack([np.cos(angle), np.sin(angle)], 1), np.full(400, 1 / 400)
    if law is LAWS["sphere"]:
        z, w = np.polynomial.legendre.leggauss(80)
        angle = np.arange(120) * 2 * np.pi / 120
        z, angle = (a.ravel() for a in np.meshgrid(z, angle, indexing="ij"))
        root = np.sqrt(1 - z**2)
        atoms = 1.3 * np.stack([root * np.cos(angle), root * np.sin(angle), z], 1)
        return atoms, np.repeat(w / 2, 120) / 120
    cube = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3, indexing="ij"), -1).reshape(-1, 3)
    return -1 + 2.5 * cube, np.prod(np.where(cube > 0, 0.3, 0.7), -1)


def hermite(parts):
    """Gauss-Hermite atoms of a mixture in R^2, whose components are smooth."""
    z, w = np.polynomial.hermite_e.hermegauss(60)
    grid, w = np.stack(np.meshgrid(z, z), -1).reshape(-1, 2), np.outer(w, w).ravel() / (2 * np.pi)
    u = (
        np.broadcast_to(np.eye(2), (len(parts.means), 2, 2))
        if parts.vectors is None
        else parts.vectors
    )
    root = u * np.sqrt(parts.values)[:, None]
    atoms = parts.means[:, None] + np.einsum("jak,nk->jna", root, grid)
    return atoms.reshape(-1, 2), (parts.weights[:, None] * w).ravel()


QUADRATURE = {
    **dict.fromkeys(("two_point", "sphere", "sphere_circle", "sphere_points"), polar),
    **{n: lambda law: hermite(law.parts) for n in ("gaussian", "mixture", "mixture_isotropic")},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", QUADRATURE)
def test_posterior_moments_are_those_of_quadrature(name):
    """Bayes on atoms: density, posterior mean and covariance by sums."""
    law, (atoms, weights) = LAWS[name], QUADRATURE[name](LAWS[name])

    @jax.jit
    def ours(x, a, s):
        return law.log_prob(x, a, s), law.denoiser(x, a, s), laws.dense(law.posterior(x, a, s))

    with jax.enable_x64(True):
        for a, s in ((0.7, 0.7), (0.1, 1.0)):
            for x in noised(law, a, s, 3):
                mass = weights * np.exp(-0.5 * np.sum((np.asarray(x) - a * atoms) ** 2, 1) / s**2)
                p = mass.sum() / (2 * np.pi * s**2) ** (law.dim / 2)
                mean = mass @ atoms / mass.sum()
                cov = (atoms - mean).T @ ((atoms - mean) * mass[:, None]) / mass.sum()
                got = ours(x, jnp.asarray(a), jnp.asarray(s))
                for value, want in zip(got, (np.log(p), mean, cov), strict=True):
                    np.testing.assert_allclose(value, want, atol=1e-9)


def test_the_product_is_quadrature_in_each_coordinate():
    law = LAWS["mixture_product"]
    means, stds, weights = np.array([[-1, 1], [0, 2]]), np.array([0.3, 0.5]), np.array([0.4, 0.6])
    x, alpha, sigma = np.array([0.4, 1.1]), 0.7, 0.5

    def moment(n, i):
        def weighted(y):
            prior = np.sum(weights * np.exp(-0.5 * ((y - means[i]) / stds) ** 2) / stds)
            return y**n * prior * np.exp(-0.5 * ((x[i] - alpha * y) / sigma) ** 2)

        whole = scipy.integrate.quad(weighted, -8, 10, epsabs=1e-13, limit=200)[0]
        return whole / (2 * np.pi * sigma)

    total, mean, second = np.array([[moment(n, i) for i in range(2)] for n in range(3)])
    with jax.enable_x64(True):
        args = jnp.asarray(x), jnp.asarray(alpha), jnp.asarray(sigma)
        np.testing.assert_allclose(law.log_prob(*args), np.log(total).sum(), atol=1e-9)
        np.testing.assert_allclose(law.denoiser(*args), mean / total, atol=1e-9)
        variance = second / total - (mean / total) ** 2
        np.testing.assert_allclose(laws.dense(law.posterior(*args)), np.diag(variance), atol=1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_the_moments_of_the_law(name):
    """Means, squares and products of coordinates, each within 4.5 of its own standard errors.

    At most 14 comparisons a law, 100 in all: a false alarm has probability below 1e-3.
    """
    law, n = LAWS[name], 20_000
    x = np.asarray(jax.jit(jax.vmap(law.sample))(jax.random.split(jax.random.key(3), n)), float)
    gap = x - law.mean
    products = gap[:, :, None] * gap[:, None, :]
    for draws, want in ((gap, 0 * law.mean), (products, np.asarray(laws.dense(law.covariance)))):
        # The floor is float32's rounding of a coordinate that does not vary.
        error = np.maximum(draws.std(0) / np.sqrt(n), 1e-6)
        np.testing.assert_array_less(np.abs(draws.mean(0) - want) / error, 4.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_the_ends_are_finite(name):
    """No noise, and nothing but noise: values and derivatives are finite."""
    law = LAWS[name]

    @jax.jit
    @jax.vmap
    def values(x, *c):
        every = [f(x, *c) for f in (law.log_prob, law.score, law.denoiser, law.posterior)]
        return every, jax.grad(lambda *a: jnp.sum(law.denoiser(*a)), (0, 1, 2))(x, *c)

    x0 = law.sample(jax.random.key(0))
    states = jnp.stack([x0, jnp.zeros(law.dim), 1e3 * jnp.ones(law.dim)])
    for c in ((1.0, 0.0), (0.0, 1.0), (1.0, 80.0)):
        for leaf in jax.tree.leaves(values(states, *(jnp.full(3, a) for a in c))):
            assert np.isfinite(leaf).all(), (c, leaf)
    clean = law.denoiser(x0, jnp.ones(()), jnp.zeros(()))
    np.testing.assert_allclose(clean, x0, atol=1e-5)
    noise = law.denoiser(3 * x0, jnp.zeros(()), jnp.ones(()))
    np.testing.assert_allclose(noise, law.mean, atol=1e-5)  # log-likelihoods of 10, rounded


@pytest.mark.parametrize("head", HEADS)
def test_the_exact_network_of_every_head_is_the_denoiser(head):
    law, path = LAWS["mixture"], PATHS["trigonometric"]()
    with jax.enable_x64(True):
        t = jnp.asarray([0.1, 0.5, 0.9])
        x = jnp.asarray(RNG.normal(size=(3, 2)))

        @jax.jit
        def both(x, t):
            out = laws.predict(law, path, head, 0.7)(x, t, None)
            want = jax.vmap(law.denoiser)(x, path.alpha(t), path.sigma(t))
            return denoised(head, path, out, x, t, 0.7)[0], want

        np.testing.assert_allclose(*both(x, t), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", PATHS)
def test_velocity_is_the_velocity_head(name):
    law, path = LAWS["mixture"], PATHS[name]()
    x, t = jnp.asarray([[0.3, -0.2]]), jnp.asarray([0.6])
    got = jax.jit(laws.velocity(law, path))(x[0], t[0])
    want = jax.jit(laws.predict(law, path, "velocity"))(x, t, None)[0]
    np.testing.assert_allclose(got, want, rtol=1e-5)


PROCESSES = {
    "vp": PATHS["vp_linear"](),
    "ve": PATHS["variance_exploding"](0.1, 5.0),
    "ou": variance_preserving(schedules.constant(8.0)),  # dX = -X dtau + sqrt 2 dB, tau = 4 t
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_the_velocity_carries_the_draws(name):
    """d/dt E h(x_t) = E[grad h . v] for h = sum cos(x), under three processes.

    Both sides are means over the same 4000 draws; |z| < 4.5 over 60 comparisons in all.
    """
    law, paths = LAWS[name], list(PROCESSES.values())

    @jax.jit
    @jax.vmap
    def gap(key, t, which):
        pick = lambda name: lambda t: jnp.stack([getattr(p, name)(t) for p in paths])[which]
        path = GaussianPath(pick("alpha"), pick("sigma"), lambda snr: snr)
        move = lambda t: laws.noised(law, path)(key, t)
        x, rate = jax.jvp(move, (t,), (jnp.ones_like(t),))
        return jnp.sum(jnp.sin(x) * (laws.velocity(law, path)(x, t) - rate))

    keys = jax.random.split(jax.random.key(5), 4000)
    for which in range(len(paths)):
        for t in (0.2, 0.6):
            found = gap(keys, jnp.full(len(keys), t), jnp.full(len(keys), which))
            gaps = np.asarray(found, np.float64)
            assert abs(gaps.mean()) < 4.5 * gaps.std() / np.sqrt(len(gaps)) + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_stochastic_localisation(name):
    """sigma^3 / (2 sigma') d/dt E[Cov] = E[Cov^2] as matrices, along the process of `ou`.

    Along draws x_t = alpha x0 + sigma eps the derivative is taken in t; both quadratic forms in two
    fixed vectors are compared, |z| < 4.5 over 24 comparisons. Where Cov does not depend on x there
    is rounding alone.
    """
    law, path = LAWS[name], PROCESSES["ou"]
    with jax.enable_x64(True):
        u = jnp.asarray(RNG.normal(size=(2, law.dim)))

        @jax.jit
        @jax.vmap
        def gaps(key, t):
            def along(t):
                x = laws.noised(law, path)(key, t)
                covariance = law.posterior(x, path.alpha(t), path.sigma(t))
                return jax.vmap(lambda u: laws.times(covariance, u))(u)

            product, rate = jax.jvp(along, (t,), (jnp.ones_like(t),))
            sigma, slope = jax.jvp(path.sigma, (t,), (jnp.ones_like(t),))
            left = sigma**3 / (2 * slope) * jnp.sum(u * rate, -1)
            return left - jnp.sum(product**2, -1)

        keys = jax.random.split(jax.random.key(7), 2000)
        for t in (0.05, 0.2):
            g = np.asarray(gaps(keys, jnp.full(len(keys), t)))
            assert (np.abs(g.mean(0)) < 4.5 * g.std(0) / np.sqrt(len(g)) + 1e-10).all()


@pytest.mark.parametrize("name", ["gaussian", "two_point", "mixture_product", "sphere"])
def test_ten_thousand_dimensions(name):
    """Nothing of d x d is built, and float32 agrees with float64."""
    d = 10_000
    law = {
        "gaussian": lambda: TARGETS["gaussian"](np.zeros(d), 2.0),
        "two_point": lambda: TARGETS["two_point"](d),
        "mixture_product": lambda: TARGETS["mixture_product"](d, [1, 2], [-1, 0.5], [0.1, 0.2]),
        "sphere": lambda: TARGETS["sphere"](d, d**0.5),
    }[name]()

    @jax.jit
    def every(*args):
        return law.denoiser(*args), law.log_prob(*args), laws.trace(law.posterior(*args))

    args = np.random.default_rng(0).normal(size=d), np.asarray(0.8), np.asarray(0.6)
    few = every(*args)
    with jax.enable_x64(True):
        many = every(*args)
    np.testing.assert_allclose(few[0], many[0], atol=3e-5)
    np.testing.assert_allclose(few[1], many[1], rtol=1e-5)
    np.testing.assert_allclose(few[2], many[2], rtol=1e-5)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: mixtures.gaussian([0, 0], [[1, 2], [0, 1]]), "must be symmetric"),
        (lambda: mixtures.gaussian([0, 0], [1, -1]), "positive semi-definite"),
        (lambda: mixtures.gaussian([0, 0], np.eye(3)), r"covariances has shape \(1, 3, 3\)"),
        (lambda: mixtures.mixture([1, 0], np.zeros((2, 2)), 1.0), "weights=.* must be positive"),
        (lambda: mixtures.mixture([1], np.zeros((2, 2)), 1.0), "means has shape"),
        (lambda: mixtures.subspace(np.zeros((2, 3))), r"factor has shape \(2, 3\)"),
        (lambda: products.two_point(3, share=1.0), r"share=1.0 must lie in \(0, 1\)"),
        (lambda: products.two_point(0), "dim=0 must be at least 1"),
        (lambda: products.mixture_product(3, [1, 1], [0, 1, 2], [1, 1]), "means has shape"),
        (lambda: products.mixture_product(3, [1, 1], [0, 1], [-1, 1]), "must not be negative"),
        (lambda: TARGETS["sphere"](3, 0.0), "radius=0.0 must be positive"),
        (lambda: TARGETS["sphere"](0), "dim=0 must be at least 1"),
        (lambda: laws.predict(LAWS["sphere"], PATHS["linear"](), "no"), "head='no' is unknown"),
    ],
)
def test_bad_input_is_named(make, text):
    with pytest.raises(UserError, match=text):
        make()
