"""The general method: it trains, judges and samples on R^d, a torus, and with conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import markov_diffusion as jobs
from gmjax import methods
from gmjax.methods import markov_diffusion
from gmjax.spaces.euclidean import euclidean
from gmjax.spaces.rotations import rotations
from gmjax.types import DataSpec, UserError

KEY = jax.random.key(0)


def config(process="vp", **changes):
    """A small job with the process named."""
    c = jobs.get_config().unlock()
    c.process.name = process
    c.network.update(width=32, blocks=1, frequencies=16)
    c.train.update(steps=300, batch_size=128)
    c.optimizer.update(learning_rate=3e-3, warmup=20, ema=0.98)
    c.evaluate.update(steps=16, times=16)
    c.sample.update(steps=60)
    for key, value in changes.items():
        section, name = key.split("__")
        c[section][name] = value
    return c.lock()


def gaussian(n, rng):
    """N((1, -1), diag(.25, .04)), and its entropy in nats."""
    return np.float32(rng.normal(size=(n, 2)) * [0.5, 0.2] + [1.0, -1.0])


ENTROPY = float(np.log(2 * np.pi * np.e) + np.log(0.5 * 0.2))


def train(c, spec, draw, steps=300):
    method = methods.build(c, spec)
    state = jax.jit(method.init)(KEY)
    update = jax.jit(method.update, donate_argnums=0)
    rng = np.random.default_rng(0)
    for i in range(steps):
        state, metrics = update(state, jax.random.fold_in(KEY, i), draw(128, rng))
    return method, state, metrics


@pytest.fixture(scope="module")
def trained():
    c = config("vp", loss__t_min=1e-2)
    spec = DataSpec((2,), 0, "euclidean")
    return train(c, spec, lambda n, rng: {"x": gaussian(n, rng)})


@pytest.mark.slow
def test_it_learns_a_gaussian(trained):
    """NLL within .2 nats of the entropy, samples within .1 of both moments, in 300 steps."""
    method, state, _ = trained
    x = gaussian(256, np.random.default_rng(1))
    nats = jax.jit(method.evaluate)(state, KEY, {"x": x})["nats"]
    error = float(nats.std()) / 16
    assert ENTROPY - 4.5 * error < float(nats.mean()) < ENTROPY + 0.25 + 4.5 * error
    out = jax.jit(lambda s, k: method.sample(s, k, 2000))(state, KEY)
    np.testing.assert_allclose(out.x.mean(0), [1.0, -1.0], atol=0.1)
    np.testing.assert_allclose(out.x.std(0), [0.5, 0.2], atol=0.1)
    assert int(out.nfe) == 60


@pytest.mark.slow
@pytest.mark.parametrize("process", ["vp", "torus"])
def test_every_function_of_the_method(process):
    c = config(process, evaluate__steps=3, sample__steps=3, sample__name="flow")
    kind = "torus" if process == "torus" else "euclidean"
    spec = DataSpec((2,), 0, kind)
    method, state, metrics = train(c, spec, lambda n, rng: {"x": gaussian(n, rng)}, 2)
    assert np.isfinite(metrics["loss"]) and int(state.step) == 2
    x = gaussian(8, np.random.default_rng(1))
    assert np.isfinite(method.evaluate(state, KEY, {"x": x})["nats"]).all()
    out = method.sample(state, KEY, 5, trajectory=2)
    assert out.x.shape == (5, 2) and out.trajectory.shape == (4, 2, 2) and int(out.nfe) == 6


@pytest.mark.slow
def test_the_bound_has_parts_that_add_up():
    c = config("vp", evaluate__likelihood="elbo", evaluate__times=4)
    method, state, _ = train(
        c, DataSpec((2,), 0, "euclidean"), lambda n, rng: {"x": gaussian(n, rng)}, 1
    )
    found = method.evaluate(state, KEY, {"x": gaussian(6, np.random.default_rng(1))})
    parts = found["prior"] + found["diffusion"] + found["entropy"]
    np.testing.assert_allclose(parts, found["nats"], rtol=1e-5)


@pytest.mark.slow
def test_labels_guide():
    c = config("vp", sample__steps=2, sample__guidance=2.0).copy_and_resolve_references().unlock()
    c.labels = True
    spec = DataSpec((2,), 0, "euclidean", num_classes=3)
    draw = lambda n, rng: {"x": gaussian(n, rng), "label": np.arange(n) % 3}
    method, state, _ = train(c, spec, draw, 2)
    out = method.sample(state, KEY, 4, {"label": jnp.arange(4) % 3})
    assert out.x.shape == (4, 2) and int(out.nfe) == 4
    with c.unlocked():
        c.sample.update(interval=(2.0, 3.0))
    with pytest.raises(UserError, match="config.sample.interval"):
        methods.build(c, spec)


@pytest.mark.slow
def test_given_entries_are_kept():
    c = config("vp", sample__steps=3, loss__observed=0.5)
    spec = DataSpec((2,), 0, "euclidean")
    method, state, metrics = train(c, spec, lambda n, rng: {"x": gaussian(n, rng)}, 2)
    assert np.isfinite(metrics["loss"])
    mask = jnp.broadcast_to(jnp.asarray([True, False]), (4, 2))
    out = method.sample(state, KEY, 4, {"observed": mask, "values": jnp.full((4, 2), 0.25)})
    np.testing.assert_array_equal(out.x[:, 0], 0.25)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"loss__t_min": 0.0}, "config.loss.t_min=0.0"),
        ({"loss__weighting": "nope"}, "config.loss.weighting='nope'"),
        ({"loss__observed": 1.0}, "config.loss.observed=1.0"),
        ({"sample__name": "euler"}, "config.sample.name='euler'"),
        ({"sample__steps": 0}, "config.sample.steps=0"),
        ({"sample__guidance": 2.0}, "config.sample.guidance=2.0 needs labels"),
        ({"evaluate__likelihood": "exact"}, "config.evaluate.likelihood='exact'"),
        ({"process__name": "nope"}, "config.process.name='nope'"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(UserError, match=message):
        methods.build(config(**change), DataSpec((2,), 0, "euclidean"))


def test_keys_of_another_choice_are_left_out():
    """A preset's own keys do not stand in the way of another clock or process; a lack is named."""
    c = config("vp").copy_and_resolve_references().unlock()
    c.process.schedule.update(name="cosine", a=1e-3, b=10.0)
    c.process.update(arrival=2.0, chain="uniform")
    methods.build(c, DataSpec((2,), 0, "euclidean"))
    c.process.name = "counts"
    with pytest.raises(UserError, match="config.process: missing a required argument: 'cap'"):
        methods.build(c, DataSpec((2,), 0, "counts"))


def test_points_off_the_space_are_found():
    method = methods.build(config("torus"), DataSpec((2,), 0, "torus"))
    assert method.check(np.zeros((3, 2))) == ""
    assert "wrap" in method.check(np.full((3, 2), 7.0))


def test_rotations_are_given_whole():
    """Masks keep every state in its space, and give a whole rotation as often as asked."""
    space = {"position": euclidean(3), "rotation": rotations()}
    x = {"position": jnp.zeros((4000, 3)), "rotation": jnp.zeros((4000, 3, 3))}
    masks = jax.tree.map(np.asarray, markov_diffusion._masks(KEY, space, x, 0.4))
    rotation = masks["rotation"].reshape(4000, 9)
    assert (rotation.all(1) == rotation.any(1)).all()
    for share in (rotation[:, 0].mean(), *masks["position"].mean(0)):
        assert abs(share - 0.2) < 4.5 * np.sqrt(0.2 * 0.8 / 4000)
    assert not (masks["position"].all(1) == masks["position"].any(1)).all()
    with pytest.raises(UserError, match="config.loss.observed=0.5"):
        methods.build(config("sphere", loss__observed=0.5), DataSpec((3,), 0, "sphere"))


def test_a_likelihood_that_does_not_exist_is_refused():
    """A product has no flow; the message says what there is."""
    spec = DataSpec({"numeric": (2,), "classes": (1,)}, 3, "table")
    with pytest.raises(UserError, match="likelihood='flow'.*valid: elbo"):
        methods.build(config("table"), spec)
    methods.build(config("table", evaluate__likelihood="elbo"), spec)


@pytest.mark.slow
def test_labels_guide_a_table():
    """Numbers and classes together, rescaled each in its own way."""
    c = config("table", evaluate__likelihood="elbo", sample__steps=2).unlock()
    c.labels = True
    c.sample.update(guidance=2.0, rescale=0.7, interval=(0.2, 0.8))
    spec = DataSpec({"numeric": (2,), "classes": (2,)}, 5, "table", num_classes=3)
    method = methods.build(c, spec)
    sample = jax.jit(lambda s, k: method.sample(s, k, 4, {"label": jnp.arange(4) % 3}))
    out = sample(jax.jit(method.init)(KEY), KEY)
    assert out.x["numeric"].shape == out.x["classes"].shape == (4, 2) and int(out.nfe) == 4
    assert np.isfinite(out.x["numeric"]).all() and int(out.x["classes"].max()) < 5
