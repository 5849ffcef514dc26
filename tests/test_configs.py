"""Every preset, with a small network, through every function of its method."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import discrete_diffusion
from gmjax import data, methods
from gmjax.types import DataSpec

SMALL = {
    "unet": {"channels": (8, 8), "blocks": 1, "mixer": 0, "attention": (1,)},
    "transformer": {"width": 24, "blocks": 1, "heads": 2},
    "mlp": {"width": 16, "blocks": 1},
}
FROM_FILES = {"mnist", "shakespeare", "promoters", "chorales"}


def small(preset):
    """The preset's configuration with a small network and few of everything."""
    config = discrete_diffusion.get_config(preset).unlock()
    config.network.update(SMALL[config.network.name])
    config.train.update(steps=4, batch_size=4)
    config.evaluate.update(times=2)
    config.sample.update(steps=2, num_samples=3, batch_size=3)
    return config.lock()


def example(config, preset):
    """The data's specification and a batch of four."""
    if preset == "cifar10":  # its files are TFDS's; the data room tests the reader
        x = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3))
        label = np.arange(4)
        return DataSpec((8, 8, 3), 256, "image", True, 10), {"x": x, "label": label}
    if preset in FROM_FILES and not os.environ.get("GMJAX_DATA_DIR"):
        pytest.skip("GMJAX_DATA_DIR is not set")
    dataset = data.load(config.data)
    return dataset.spec, dataset.train.take(np.arange(4))


QUICK = {"smoke"}  # the others compile for longer
CASES = [
    pytest.param(preset, marks=() if preset in QUICK else pytest.mark.slow)
    for preset in discrete_diffusion.PRESETS
]


@pytest.mark.parametrize("preset", CASES)
def test_every_preset_trains_evaluates_and_samples(preset):
    config = small(preset)
    spec, batch = example(config, preset)
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    method = methods.build(config, spec)
    state = jax.jit(method.init)(jax.random.key(0))
    before = jax.tree.leaves(state.params)
    after, metrics = jax.jit(method.update)(state, jax.random.key(1), batch)
    # One step from the zero-initialised warm-up moves nothing; the second does.
    after, metrics = jax.jit(method.update)(after, jax.random.key(2), batch)
    assert np.isfinite(metrics["loss"]) and int(after.step) == 2
    moved = [np.any(a != b) for a, b in zip(before, jax.tree.leaves(after.params), strict=True)]
    assert any(moved)
    bound = jax.jit(method.evaluate)(after, jax.random.key(3), batch)
    assert bound["nats"].shape == (4,) and np.all(np.isfinite(bound["nats"]))
    parts = sum(bound[name] for name in ("prior", "diffusion", "reconstruction"))
    np.testing.assert_allclose(parts, bound["nats"], rtol=1e-5)
    cond = {}
    if "observed" in batch:
        cond = {"observed": batch["observed"][:3], "values": batch["x"][:3]}
    out = jax.jit(lambda s, k: method.sample(s, k, 3, cond, trajectory=2))(after, jax.random.key(4))
    assert out.x.shape == (3, *spec.shape)
    assert int(out.x.min()) >= 0 and int(out.x.max()) < spec.num_values
    assert out.trajectory.shape == (3, 2, *spec.shape) and int(out.nfe) == 3
    if cond:
        given = np.asarray(cond["observed"])
        np.testing.assert_array_equal(np.asarray(out.x)[given], np.asarray(cond["values"])[given])


@pytest.mark.parametrize(
    "name, grid",
    [
        ("tweedie", "adaptive"),
        pytest.param("tau_leaping", "noise", marks=pytest.mark.slow),
        ("euler", "clock"),
        pytest.param("ancestral", "uniform", marks=pytest.mark.slow),
        pytest.param("exact", "noise", marks=pytest.mark.slow),
    ],
)
def test_every_sampler_with_labels_and_guidance(name, grid):
    config = small("digits").unlock()
    config.network.update(SMALL["mlp"], name="mlp")
    config.labels = True
    config.sample.update(name=name, grid=grid, guidance=2.0, steps=3)
    config.sample.corrector.steps = 1 if name == "euler" else 0
    spec, batch = example(config, "digits")
    method = methods.build(config, spec)
    state = jax.jit(method.init)(jax.random.key(0))
    cond = {"label": jnp.asarray([1, 2, 3])}
    out = jax.jit(lambda s, k: method.sample(s, k, 3, cond))(state, jax.random.key(1))
    assert int(out.x.min()) >= 0 and int(out.x.max()) < 17
    if name != "exact":
        # Guidance doubles every evaluation; a pilot run of 3 steps takes 7, a corrector 3.
        assert int(out.nfe) == 2 * (4 + {"tweedie": 7, "euler": 3}.get(name, 0))


@pytest.mark.slow
def test_labels_change_the_prediction_and_dropping_them_is_the_null_class():
    config = small("digits").unlock()
    config.network.update(SMALL["mlp"], name="mlp")
    config.labels = True
    spec, batch = example(config, "digits")
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    method = methods.build(config, spec)
    state = jax.jit(method.init)(jax.random.key(0))
    noisy = jax.tree.map(
        lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), state.ema
    )
    state = state._replace(ema=noisy)
    evaluate = jax.jit(lambda batch: method.evaluate(state, jax.random.key(1), batch)["nats"])
    other = evaluate({**batch, "label": jnp.full_like(batch["label"], 10)})
    assert np.any(np.abs(evaluate(batch) - other) > 1e-4)
