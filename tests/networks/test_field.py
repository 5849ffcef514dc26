"""The score network of any space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.networks import field
from gmjax.types import UserError

SMALL = {"width": 16, "blocks": 1, "frequencies": 8}
X = jax.random.normal(jax.random.key(0), (5, 3))
T = jnp.linspace(0.1, 0.9, 5)


def filled(network, *args):
    """Parameters that are zero nowhere."""
    params = network.init(jax.random.key(0), *args)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [p + 0.3 * jax.random.normal(k, p.shape) for k, p in zip(keys, leaves, strict=True)]
    return tree.unflatten(noisy)


@pytest.mark.slow
def test_it_is_zero_at_first_and_depends_on_everything_later():
    network = field.build(SMALL, 7, num_classes=3)
    cond = {"label": jnp.arange(5) % 3, "context": jnp.ones((5, 2))}
    start = network.apply(network.init(jax.random.key(0), X, T, cond), X, T, cond)
    assert start.shape == (5, 7) and start.dtype == jnp.float32
    np.testing.assert_array_equal(start, 0)
    params = filled(network, X, T, cond)
    out = network.apply(params, X, T, cond)
    others = (
        (X + 0.1, T, cond),
        (X, T + 0.05, cond),
        (X, T, {**cond, "label": cond["label"] + 1}),
        (X, T, {**cond, "context": cond["context"] * 2}),
    )
    for args in others:
        assert np.abs(network.apply(params, *args) - out).min() > 1e-6


@pytest.mark.slow
def test_examples_do_not_mix_and_bfloat16_is_close():
    network = field.build(SMALL, 2)
    params = filled(network, X, T)
    out = network.apply(params, X, T)
    np.testing.assert_allclose(network.apply(params, X[2:3], T[2:3])[0], out[2], rtol=1e-4)
    low = field.build({**SMALL, "dtype": "bfloat16"}, 2).apply(params, X, T)
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, out, atol=0.1 * float(jnp.abs(out).max()))


@pytest.mark.parametrize("key, value", [("width", 0), ("dropout", 1.0), ("depth", 3)])
def test_bad_settings_are_named(key, value):
    with pytest.raises(UserError, match=f"config.network.{key}={value}"):
        field.build({key: value}, 2)
