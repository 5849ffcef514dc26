import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gmjax.networks import layers


def test_dense_is_flax_dense_on_any_leading_axes():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    ours, theirs = layers.Dense(7), nn.Dense(7)
    params = ours.init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, theirs.init(jax.random.key(1), x)
    )
    params = jax.tree.map(lambda p: p + 0.1, params)
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), atol=1e-5)


def test_dense_computes_in_dtype_and_keeps_float32_parameters():
    x = jnp.ones((2, 3))
    params = layers.Dense(4, jnp.bfloat16).init(jax.random.key(0), x)
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert layers.Dense(4, jnp.bfloat16).apply(params, x).dtype == jnp.bfloat16


def test_normalise_centres_and_scales_and_survives_a_constant():
    x = 5 + 3 * jax.random.normal(jax.random.key(0), (4, 256))
    y = layers.normalise(x.astype(jnp.bfloat16))
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(-1), 1, atol=1e-4)
    grad = jax.grad(lambda x: layers.normalise(x).sum())(jnp.ones((2, 3)))
    assert jnp.isfinite(grad).all()


def test_modulation_starts_at_zero_and_splits_in_order():
    c = jax.random.normal(jax.random.key(0), (3, 4))
    module = layers.Modulation(2, 5)
    params = module.init(jax.random.key(1), c)
    assert all((v == 0).all() and v.shape == (3, 5) for v in module.apply(params, c))
    params["params"]["Dense_0"]["bias"] = jnp.arange(10.0)
    first, second = module.apply(params, c)
    assert (first == jnp.arange(5.0)).all() and (second == jnp.arange(5.0, 10)).all()
