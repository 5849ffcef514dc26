"""Every preset of flow matching, with a small network, through every function of its method."""

import os

import jax
import numpy as np
import pytest

from configs import flow_matching
from gmjax import data, methods
from gmjax.types import UserError

FROM_FILES = {"shakespeare", "volcano", "earthquake", "torsions", "abalone"}
SMALL = {
    "unet": {"channels": (8, 8), "mixer": 8},
    "transformer": {"width": 24, "blocks": 1, "heads": 2},
    "mlp": {"width": 16, "blocks": 1, "frequencies": 8},
}
QUICK = {"smoke"}  # the others compile for longer
CASES = [
    pytest.param(preset, marks=() if preset in QUICK else pytest.mark.slow)
    for preset in flow_matching.PRESETS
]


def small(preset):
    """The preset with a small network and few of everything."""
    config = flow_matching.get_config(preset).unlock()
    config.network.update(SMALL[config.network.name])
    config.train.update(steps=4, batch_size=8)
    config.coupling.group = 0
    config.evaluate.update(times=2, steps=2)
    config.sample.update(steps=3, num_samples=4, batch_size=4)
    if preset in FROM_FILES and not os.environ.get("GMJAX_DATA_DIR"):
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
    cond = {"source": batch["source"][:4]} if "source" in batch else None
    out = jax.jit(lambda s, k: method.sample(s, k, 4, cond, trajectory=2))(state, jax.random.key(4))
    assert int(out.nfe) == (6 if config.sample.name == "midpoint" else 3)
    for leaf, like in zip(jax.tree.leaves(out.x), jax.tree.leaves(batch["x"]), strict=True):
        assert leaf.shape == (4, *like.shape[1:]) and leaf.dtype == like.dtype
        assert np.isfinite(leaf).all()
    assert method.check(jax.device_get(out.x)) == ""
    assert jax.tree.leaves(out.trajectory)[0].shape[:2] == (4, 2)


def test_an_unknown_preset_is_named():
    with pytest.raises(UserError, match="config preset='mars'"):
        flow_matching.get_config("mars")
