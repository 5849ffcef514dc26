"""Log-weights of variational autoencoders on the digits, at the start and after training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import vae as jobs
from gmjax import data
from gmjax.data import batches
from gmjax.losses import variational
from gmjax.methods import vae
from gmjax.types import Array, Key, PyTree


class Trained(NamedTuple):
    """A model, its parameters before and after training, and examples it has not seen."""

    model: vae.Model
    start: PyTree
    params: PyTree
    x: Array  # [B, *S] as the model sees them


def train(latent: int, steps: int, images: int, preset: str = "digits", seed: int = 0) -> Trained:
    """A VAE of `latent` codes trained by the ELBO.

    Args:
        steps: of the preset's optimizer.
        images: test examples to keep.
        preset: of `configs/vae.py`.
    """
    config: Any = jobs.get_config(preset).unlock()
    config.network.latent = latent
    config.train.steps = steps
    dataset = data.load(config.data)
    model, method = vae.model(config, dataset.spec), vae.build(config, dataset.spec)
    key, key_read = jax.random.split(jax.random.key(seed))
    state = jax.jit(method.init)(key)
    start = jax.device_get(state.params)
    update = jax.jit(method.update, donate_argnums=0)
    for i in range(steps):
        batch = batches.batch(dataset.train, config.train.batch_size, seed, i)
        state, _ = update(state, jax.random.fold_in(key, i), {"x": batch["x"]})
    x = model.read(key_read, jnp.asarray(dataset.test.take(np.arange(images))["x"]))
    return Trained(model, start, jax.device_get(state.params), x)


def log_weights(
    model: vae.Model, params: PyTree, x: Array, key: Key, draws: int, chunk: int
) -> np.ndarray:
    """log w = log p(x, z) / q(z | x) of independent codes: [draws, B] nats.

    Args:
        chunk: draws at a time, a divisor of `draws`.
    """

    @jax.jit
    def run(params, keys):
        q = model.encode(params, x)

        def part(key):
            z = variational.draw(q, jax.random.normal(key, (chunk, *q.mean.shape)))
            joint = vae.log_likelihood(model, params, x, z, None) + variational.standard(z)
            return joint - variational.log_prob(q, z)

        return jax.lax.map(part, keys)

    found = run(params, jax.random.split(key, draws // chunk))
    return np.asarray(found).reshape(draws, len(x))
