"""Encoders and decoders: shapes, labels, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.networks import num_params, vae
from gmjax.types import UserError

KEY = jax.random.key(0)
SMALL = {
    "mlp": {"name": "mlp", "latent": 3, "hidden": (8,)},
    "conv": {"name": "conv", "latent": 3, "hidden": (8,), "channels": (4, 6)},
}


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("name", vae.NETWORKS)
def test_codes_and_entries_have_their_shapes_and_labels_count(name, outputs, classes):
    network = vae.build(SMALL[name], (8, 4, 1), outputs, classes)
    x, label = jax.random.normal(KEY, (5, 8, 4, 1)), jnp.arange(5) % 4
    label = label if classes else None
    params = network.init(KEY, x, label)
    mean, log_std = network.apply(params, 1e6 * x, label, method="encode")
    assert mean.shape == log_std.shape == (5, 3) and np.abs(log_std).max() <= vae.BOUND
    out = network.apply(params, mean, label, method="decode")
    assert out.shape == (5, 8, 4, 1, outputs) and np.isfinite(out).all()
    if classes:
        other = (label + 1) % 4
        codes = [network.apply(params, x, y, method="encode")[0] for y in (label, other)]
        parts = [network.apply(params, mean, y, method="decode") for y in (label, other)]
        assert np.abs(codes[0] - codes[1]).max(1).min() > 1e-4
        assert np.abs(parts[0] - parts[1]).reshape(5, -1).max(1).min() > 1e-4
        with pytest.raises(UserError, match="no label"):
            network.apply(params, x, method="encode")


def test_the_published_network():
    """784-200-200-50 and back, counted by hand."""
    config = {"name": "mlp", "latent": 50, "hidden": (200, 200), "activation": "tanh"}
    network = vae.build(config, (28, 28, 1), 1, 0)
    params = jax.eval_shape(network.init, KEY, jnp.zeros((1, 28, 28, 1)))
    inward = 785 * 200 + 201 * 200 + 201 * 100
    assert num_params(params) == inward + 51 * 200 + 201 * 200 + 201 * 784


@pytest.mark.parametrize(
    "config, shape, message",
    [
        ({"name": "rnn"}, (8,), "config.network.name='rnn' is unknown; valid: conv, mlp"),
        ({"name": "mlp", "latent": 0}, (8,), "config.network.latent=0"),
        ({"name": "mlp", "activation": "sine"}, (8,), "config.network.activation='sine'"),
        ({"name": "mlp", "depth": 2}, (8,), "config.network.depth=2 is unknown"),
        ({"name": "conv"}, (8,), "config.network.name='conv' is not valid: needs images"),
        ({"name": "conv"}, (6, 8, 1), "config.network.channels=\\(32, 64\\) is not valid"),
    ],
)
def test_what_does_not_fit_is_refused(config, shape, message):
    with pytest.raises(UserError, match=message):
        vae.build(config, shape, 1, 0)
