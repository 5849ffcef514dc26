"""Every preset of the general job, with a small network, through every function of its method."""

import os

import jax
import numpy as np
import pytest

from configs import markov_diffusion
from gmjax import data, methods
from gmjax.types import UserError

SYNTHETIC = {"rotations", "simplex", "counts", "hyperbolic", "poses", "smoke"}
QUICK = {"smoke"}  # the others compile for longer
CASES = [
    pytest.param(preset, marks=() if preset in QUICK else pytest.mark.slow)
    for preset in markov_diffusion.PRESETS
]


def small(preset):
    """The preset with a small network and few of everything."""
    config = markov_diffusion.get_config(preset).unlock()
    config.network.update(width=16, blocks=1, frequencies=8)
    config.train.update(steps=4, batch_size=8)
    config.evaluate.update(times=2, steps=2)
    config.sample.update(steps=3, num_samples=4, batch_size=4)
    if preset not in SYNTHETIC and not os.environ.get("GMJAX_DATA_DIR"):
        pytest.skip("GMJAX_DATA_DIR is not set")
    return config.lock()


@pytest.mark.parametrize("preset", CASES)
def test_every_preset_trains_evaluates_and_samples(preset):
    config = small(preset)
    dataset = data.load(config.data)
    method = methods.build(config, dataset.spec)
    batch = dataset.train.take(np.arange(8))
    assert method.check(batch["x"]) == ""
    state = jax.jit(method.init)(jax.random.key(0))
    update = jax.jit(method.update)
    state, _ = update(state, jax.random.key(1), batch)
    state, metrics = update(state, jax.random.key(2), batch)
    assert np.isfinite(metrics["loss"]) and int(state.step) == 2
    found = jax.jit(method.evaluate)(state, jax.random.key(3), batch)
    assert found["nats"].shape == (8,) and np.isfinite(found["nats"]).all()
    out = jax.jit(lambda s, k: method.sample(s, k, 4, trajectory=2))(state, jax.random.key(4))
    assert int(out.nfe) == 3
    for leaf, like in zip(jax.tree.leaves(out.x), jax.tree.leaves(batch["x"]), strict=True):
        assert leaf.shape == (4, *like.shape[1:]) and np.isfinite(leaf).all()
    # The law need not be right yet, but every sample is a point of the space; counts may be
    # larger than any in the data.
    x = jax.device_get(out.x)
    assert method.check(np.minimum(x, 16) if preset == "counts" else x) == ""


def test_an_unknown_preset_is_named():
    with pytest.raises(UserError, match="config preset='mars'"):
        markov_diffusion.get_config("mars")
