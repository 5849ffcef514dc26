"""Classifier-free guidance is the power law it claims, for every parametrisation."""

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from gmjax.processes import ctmc
from gmjax.samplers import guidance


def test_guided_posterior_is_the_tempered_product():
    key_c, key_u = jax.random.split(jax.random.key(0))
    c, u = jax.random.normal(key_c, (3, 2, 5)), jax.random.normal(key_u, (3, 2, 5))

    def predict(x, t, cond):
        null = (cond["label"] == 7)[:, None, None]
        return jnp.where(null, jnp.tile(u, (2, 1, 1)), jnp.tile(c, (2, 1, 1)))

    x, t, cond = jnp.zeros((3, 2), jnp.int32), jnp.full(3, 0.5), {"label": jnp.arange(3)}
    p, q = jax.nn.softmax(c), jax.nn.softmax(u)
    for scale in (0.0, 1.0, 2.5):
        out = guidance.classifier_free(predict, scale, 7)(x, t, cond)
        truth = p**scale * q ** (1 - scale)
        truth /= truth.sum(-1, keepdims=True)
        np.testing.assert_allclose(jax.nn.softmax(out), truth, rtol=1e-5)


def test_guidance_commutes_with_the_parametrisation():
    """Guided leave-one-out logits are the leave-one-out of the guided posterior."""
    w = tiny.world("rates")
    x = jnp.asarray([[0, 2]])
    t = jnp.full(1, 0.5)
    key_c, key_u = jax.random.split(jax.random.key(1))
    c, u = jax.random.normal(key_c, (2, 3)), jax.random.normal(key_u, (2, 3))
    to = lambda g: ctmc.leave_one_out_to_posterior(w.ctmc, g, x[0], t[0])
    scale = 1.7
    mixed = to(u + scale * (c - u))
    posterior = jax.nn.log_softmax(to(u) + scale * (to(c) - to(u)), -1)
    np.testing.assert_allclose(mixed, posterior, atol=1e-4)
