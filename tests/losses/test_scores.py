"""Score losses against the generator's own, and against the exact Gaussian."""

import gaussians
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from gmjax.losses import generalised, scores, times
from gmjax.processes import chains, ctmc, schedules

KEY = jax.random.key(0)
PROCESS = gaussians.process()
CLOCK = times.uniform_in_t(0.1)


def model(params, x, t):
    """An unnormalised log density with parameters, and its score by hand below."""
    a, b = params
    return -0.5 * a * jnp.sum(x**2) + b * jnp.sin(x[0] + t)


def model_score(params, x, t):
    return jax.grad(model, 1)(params, x, t)


PARAMS = (jnp.asarray(0.8), jnp.asarray(0.5))


def test_phi_in_scores_is_phi_of_the_generator():
    x, x0, t = jnp.asarray([0.3, -0.2]), jnp.asarray([1.0, 0.4]), jnp.asarray(0.3)
    beta = lambda x, t: model(PARAMS, x, t)
    slow = generalised.denoising(PROCESS.generator, beta, PROCESS.log_prob, x, x0, t)
    fast = PROCESS.phi(x, t, PROCESS.target(x0, x, t), model_score(PARAMS, x, t))
    np.testing.assert_allclose(fast, slow, rtol=1e-4)


@pytest.mark.slow
def test_denoising_and_sliced_losses_have_the_gradient_of_the_implicit_loss():
    """All three on the same draws of x; their gradients agree in the mean."""
    n = 40_000
    x0 = gaussians.data(KEY, n)
    predict = lambda p: (
        lambda x, t, cond: jax.vmap(
            lambda x, t: model_score(p, x, t) * jnp.sqrt(-jnp.expm1(-gaussians.SPEED * t))
        )(x, t)
    )
    denoise = scores.denoising(PROCESS, CLOCK, likelihood=True)
    slice_ = scores.sliced(PROCESS, PROCESS.space, lambda t: gaussians.SPEED, CLOCK, probes=2)
    fill = lambda beta, x, x0, t: generalised.implicit(PROCESS.generator, beta, x, t)
    implicit = generalised.along(PROCESS, fill, CLOCK)

    def each(loss):
        """Per-example derivatives in both parameters: [2, n]."""
        return jnp.stack(jax.jacfwd(lambda p: loss(p))(PARAMS))

    found = jax.jit(
        lambda: (
            each(lambda p: denoise(predict(p), jax.random.key(1), x0, None)[0]),
            each(lambda p: slice_(predict(p), jax.random.key(2), x0, None)[0]),
            each(lambda p: implicit(lambda x, t: model(p, x, t), jax.random.key(3), x0, None)[0]),
        )
    )()
    for i in range(2):
        assert abs(oracles.z(found[0][i], found[2][i])) < oracles.Z
        assert abs(oracles.z(found[1][i], found[2][i])) < oracles.Z
        assert abs(float(jnp.mean(found[0][i]))) > 0.5, "a gradient that could differ"


@pytest.mark.slow
def test_the_three_generalised_gradients_agree_by_quadrature():
    axis = jnp.linspace(-6.0, 6.0, 61)
    nodes = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    volume = jnp.full(len(nodes), (axis[1] - axis[0]) ** 2)
    atoms, weights = jnp.asarray([[1.0, 0.5], [-0.5, 0.3]]), jnp.asarray([0.3, 0.7])
    found = oracles.gradients(
        PROCESS, model, PARAMS, atoms, weights, nodes, volume, jnp.asarray(0.15)
    )
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=2e-3)


@pytest.mark.slow
def test_the_bound_is_tight_at_the_exact_score_and_positive_elsewhere():
    """E nats = H(q_s) + KL(q_1 || base), and KL at t = 1 is 1e-4 here."""
    n = 4000
    x0 = gaussians.data(KEY, n)
    bound = jax.jit(
        lambda f: scores.elbo(PROCESS, CLOCK, 0.1, 8)(f, jax.random.key(1), x0, None)["nats"],
        static_argnums=0,
    )
    mean, covariance = gaussians.moments(0.1)
    entropy = 0.5 * float(jnp.linalg.slogdet(2 * jnp.pi * jnp.e * covariance)[1])
    nats = bound(gaussians.predict)
    error = float(jnp.std(nats)) / np.sqrt(n)
    assert abs(float(jnp.mean(nats)) - entropy) < 4.5 * error + 1e-3
    wrong = bound(lambda x, t, cond: 0.5 * gaussians.predict(x, t))
    assert float(jnp.mean(wrong)) > entropy + 0.1


def test_the_simple_loss_of_a_perfect_score_is_its_variance():
    """E |std (target - score)|^2 / d is the posterior variance of z, below one."""
    x0 = gaussians.data(KEY, 20_000)
    loss = scores.denoising(PROCESS, CLOCK)
    exact = jnp.mean(loss(gaussians.predict, jax.random.key(1), x0, None)[0])
    worse = jnp.mean(loss(lambda x, t, c: 1.2 * gaussians.predict(x, t), KEY, x0, None)[0])
    zero = jnp.mean(loss(lambda x, t, c: 0 * x, jax.random.key(1), x0, None)[0])
    np.testing.assert_allclose(zero, 1.0, atol=4.5 / np.sqrt(20_000))
    assert exact < worse < zero


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uniform", "absorbing", "birth_death"])
def test_phi_of_a_chain_in_ratios_integrates_to_phi_of_its_generator(name):
    """They differ pointwise, and agree in the mean over q_t(. | x0): an exact sum."""
    chain = chains.CHAINS[name](3)
    noise = ctmc.CTMC(chain, schedules.constant(1.5))
    process = ctmc.process(noise, (1,))
    x0, t = jnp.asarray([1]), jnp.asarray(0.4)
    log_beta = lambda x, t: jnp.sin(1.7 * x[0].astype(float) + t)
    if name == "absorbing":
        # Only states that x0 reaches: the others have no density to compare.
        states = jnp.asarray([[1], [3]])
    else:
        states = jnp.arange(chain.num_states)[:, None]
    weights = jax.vmap(lambda x: jnp.exp(process.log_prob(x, x0, t)))(states)

    def fast(x):
        values = jnp.arange(chain.num_states)[:, None]
        score = jnp.exp(jax.vmap(lambda y: log_beta(y, t))(values) - log_beta(x, t))[None]
        return process.phi(x, t, process.target(x0, x, t), score)

    def slow(x):
        rates = process.generator
        return generalised.denoising(rates, log_beta, process.log_prob, x, x0, t)

    fast, slow = jax.vmap(fast)(states), jax.vmap(slow)(states)
    if name == "absorbing":
        # Moves into the mask from the unreachable values count in neither.
        keep = jnp.isfinite(slow)
        assert keep.all()
        others = jnp.asarray([0.0, 0.0])
        for y in (0, 2):
            ratio = jnp.exp(log_beta(jnp.asarray([y]), t) - log_beta(jnp.asarray([3]), t))
            others = others + jnp.asarray([0.0, 1.5 * ratio])
        fast = fast - others
    np.testing.assert_allclose(jnp.sum(weights * fast), jnp.sum(weights * slow), rtol=1e-4)


def test_observed_components_stay_clean():
    seen = {}

    def predict(x, t, cond):
        seen["x"] = x
        return jnp.zeros_like(x)

    x0 = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
    mask = jnp.asarray([[True, False], [True, False]])
    scores.denoising(PROCESS, CLOCK)(predict, KEY, x0, {"observed": mask})
    np.testing.assert_array_equal(seen["x"][:, 0], x0[:, 0])
    assert np.all(seen["x"][:, 1] != x0[:, 1])


def test_a_process_without_phi_says_so():
    with pytest.raises(ValueError, match="phi"):
        scores.denoising(PROCESS._replace(phi=None), CLOCK)
