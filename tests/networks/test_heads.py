import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from gmjax.networks import embeddings, heads
from gmjax.types import DataSpec, UserError

KEY = jax.random.key(0)


truncated_logistic = jax.jit(heads.truncated_logistic, static_argnums=2)


def quadrature(mean, log_scale, num_values):
    """Bin probabilities of the truncated logistic law by numerical integration, float64."""
    scale = np.exp(8 * np.tanh(log_scale / 8))
    half = 1 / (num_values - 1)
    levels = np.linspace(-1, 1, num_values)
    density = stats.logistic(mean, scale).pdf
    bins = [integrate.quad(density, u - half, u + half, epsabs=0, limit=200)[0] for u in levels]
    return np.array(bins) / sum(bins)


@pytest.mark.parametrize("num_values", [2, 5, 17])
@pytest.mark.parametrize("log_scale", [-2.0, -0.5, 1.0])
@pytest.mark.parametrize("mean", [-1.3, 0.0, 0.37, 2.0])
def test_truncated_logistic_against_quadrature(mean, log_scale, num_values):
    got = truncated_logistic(mean, log_scale, num_values)
    want = np.log(quadrature(mean, log_scale, num_values))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_truncated_logistic_sums_to_one_and_is_symmetric():
    mean = jnp.linspace(-3, 3, 13)[:, None]
    log_scale = jnp.linspace(-30, 30, 13)
    p = truncated_logistic(mean, log_scale, 33)
    np.testing.assert_allclose(jnp.exp(p).sum(-1), 1, rtol=2e-5)
    mirrored = truncated_logistic(-mean, log_scale, 33)[..., ::-1]
    np.testing.assert_allclose(p, mirrored, rtol=1e-4, atol=1e-4)
    wide = truncated_logistic(jnp.array(0.0), jnp.array(50.0), 33)
    np.testing.assert_allclose(wide, -np.log(33), atol=1e-5)
    narrow = truncated_logistic(jnp.array(0.5), jnp.array(-50.0), 33)
    assert narrow.argmax() == 24 and narrow.max() > -1e-6


def test_truncated_logistic_has_finite_gradients_at_extremes():
    mean, log_scale = np.meshgrid([-1e6, -50, -1, 0, 0.123, 1, 1e4], [-1e6, -20, 0, 20, 1e6])
    value = lambda m, s: heads.truncated_logistic(m, s, 256)
    both = jax.jit(jax.vmap(lambda m, s: (value(m, s), jax.jacrev(value, (0, 1))(m, s))))
    out, grads = both(jnp.ravel(jnp.float32(mean)), jnp.ravel(jnp.float32(log_scale)))
    assert all(jnp.isfinite(a).all() for a in (out, *grads))
    assert jnp.abs(grads[0]).max() > 1 and jnp.abs(grads[1]).max() > 1


def test_truncated_logistic_gradient_in_the_far_tail():
    """Many scales away log p_k is linear in k and moves with the mean; nothing is lost."""
    value = lambda m: heads.truncated_logistic(m, jnp.array(-4.0), 17)
    slope = jax.jacrev(lambda m: value(m)[1] - value(m)[0])(jnp.array(1.0))
    steps = truncated_logistic(jnp.array(1.0), jnp.array(-4.0), 17)
    precision = np.exp(8 * np.tanh(0.5))
    assert abs(float(slope)) < 1e-3 * precision  # the two bins move together
    np.testing.assert_allclose(steps[1] - steps[0], precision / 8, rtol=1e-4)


def random_readout(module, h, x):
    params = jax.eval_shape(module.init, KEY, h, x)
    return jax.tree.map(lambda p: np.random.default_rng(0).normal(size=p.shape).astype("f"), params)


@pytest.mark.parametrize("head", heads.HEADS)
def test_readout_shape_and_dtype(head):
    h, x = jnp.ones((2, 3, 8), jnp.bfloat16), jnp.ones((2, 3, 4), int)
    module = heads.Readout(5, head, 1.0, jnp.bfloat16)
    params = random_readout(module, h, x)
    out = module.apply(params, h, x)
    assert out.shape == (2, 3, 4, 5) and out.dtype == jnp.float32


def test_readout_accumulates_in_float32():
    """Logits are not rounded to 8 bits when the features and weights are."""
    h = jax.random.normal(KEY, (4, 64)).astype(jnp.bfloat16)
    x, module = jnp.ones((4, 1), int), heads.Readout(9, dtype=jnp.bfloat16)
    params = random_readout(module, h, x)
    params["params"]["bias"] *= 0
    kernel = params["params"]["kernel"].astype(jnp.bfloat16).astype(np.float64)
    want = np.asarray(h, np.float64) @ kernel.reshape(64, 9)
    np.testing.assert_allclose(module.apply(params, h, x)[:, 0], want, atol=1e-4)


def test_readout_smooths_logits_over_levels():
    h, x = jax.random.normal(KEY, (2, 3, 8)), jnp.ones((2, 3, 4), int)
    params = random_readout(heads.Readout(6), h, x)
    raw = heads.Readout(6).apply(params, h, x)
    got = heads.Readout(6, smoothing=1.5).apply(params, h, x)
    m = embeddings.smoothing_matrix(6, 1.5)
    want = np.einsum("kj,...j->...k", m, raw)
    np.testing.assert_allclose(got, want, atol=1e-4)
    np.testing.assert_allclose(m @ np.ones(6), 1, rtol=1e-6)  # equal logits stay equal


def test_readout_starts_uniform_and_the_logistic_one_around_its_input():
    h, x = jax.random.normal(KEY, (1, 2, 8)), jnp.array([[[0], [16]]])
    logits = heads.Readout(17)
    assert not logits.apply(logits.init(KEY, h, x), h, x).any()
    logistic = heads.Readout(17, "logistic")
    out = logistic.apply(logistic.init(KEY, h, x), h, x)
    assert (out.argmax(-1) == x[..., 0][..., None]).all()
    masked = logistic.apply(logistic.init(KEY, h, x), h, jnp.full_like(x, 17))
    np.testing.assert_allclose(masked, masked[..., ::-1], atol=1e-5)


def test_an_unordered_alphabet_has_no_logistic_head_and_no_smoothing():
    spec = DataSpec((4,), 5, "vector")
    for config in ({"head": "logistic"}, {"smoothing": 1.0}):
        with pytest.raises(UserError, match=f"config.network.{next(iter(config))}"):
            heads.read(config, {}, spec)
        assert heads.read(config, {}, spec._replace(ordinal=True)).items() >= config.items()
