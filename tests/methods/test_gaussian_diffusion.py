"""Every preset of Gaussian diffusion, small, and the mistakes a user can make."""

import jax
import numpy as np
import pytest

from configs import gaussian_diffusion as jobs
from configs import sections
from gmjax import methods
from gmjax.types import DataSpec, UserError

IMAGES = DataSpec((8, 8, 1), 17, "image", ordinal=True, num_classes=10)
PLANE = DataSpec((2,), 0, "euclidean")
COLOUR = DataSpec((16, 16, 3), 256, "image", ordinal=True, num_classes=10)
SPECS = {"toy": PLANE, "cifar10": COLOUR, "imagenet64": COLOUR, "mnist": COLOUR}
AS_IT_IS = {
    "toy": PLANE,
    "cifar10": DataSpec((32, 32, 3), 256, "image", ordinal=True, num_classes=10),
    "imagenet64": DataSpec((64, 64, 3), 256, "image", ordinal=True, num_classes=1000),
    "mnist": DataSpec((28, 28, 1), 256, "image", ordinal=True, num_classes=10),
}
QUICK = {"toy"}
PRESETS = [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in jobs.PRESETS]


def small(preset, **changes):
    """The preset with a small network and few of everything."""
    config = jobs.get_config(preset).unlock()
    sizes = {
        "unet": {"channels": (8, 16), "blocks": 1, "mixer": 0, "attention": (1,)},
        "transformer": {"width": 16, "blocks": 1, "heads": 2},
        "mlp": {"width": 16, "blocks": 1},
    }
    config.network.update(sizes[config.network.name])
    config.train.update(steps=4, batch_size=8)
    config.evaluate.update(times=2, steps=2, limit=8)
    config.sample.update(steps=3, num_samples=4, batch_size=4)
    for key, value in changes.items():
        section, name = key.split("__")
        config[section][name] = value
    return config.lock()


def batch_of(spec, n=8):
    rng = np.random.default_rng(0)
    if not spec.num_values:
        return {"x": rng.normal(size=(n, *spec.shape)).astype(np.float32)}
    x = rng.integers(0, spec.num_values, (n, *spec.shape)).astype(np.int32)
    return {"x": x, "label": rng.integers(0, 10, n).astype(np.int32)}


def run(config, spec, labels=False):
    """(loss, evaluation, samples) of two updates."""
    method, batch = methods.build(config, spec), batch_of(spec)
    assert method.check(batch["x"]) == ""

    @jax.jit
    def every(key, batch):
        update = lambda state, key: method.update(state, key, batch)
        state, metrics = jax.lax.scan(update, method.init(key), jax.random.split(key))
        cond = {"label": np.arange(4, dtype=np.int32)} if labels else None
        found = method.evaluate(state, key, batch)
        return metrics, found, method.sample(state, key, 4, cond, trajectory=2)

    return jax.device_get(every(jax.random.key(0), batch))


def perceptron(config):
    """The configuration with a perceptron, where the network does not matter."""
    config = config.copy_and_resolve_references().unlock()
    config.network = sections.network("mlp", width=16, blocks=1)
    return config


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits_together_as_it_is(preset):
    spec = AS_IT_IS.get(preset, IMAGES)
    method, batch = methods.build(jobs.get_config(preset), spec), batch_of(spec)

    def every(key):
        state = method.init(key)
        after, metrics = method.update(state, key, batch)
        found = method.evaluate(state, key, batch)
        return state, after, metrics, found, method.sample(state, key, 4, None, trajectory=2)

    state, after, metrics, found, out = jax.eval_shape(every, jax.random.key(0))
    assert jax.tree.structure(state) == jax.tree.structure(after)
    assert jax.tree.leaves(state) == jax.tree.leaves(after)
    assert metrics["loss"].shape == () and found["nats"].shape == (8,)
    assert out.x.shape == (4, *spec.shape) and out.trajectory.shape[2:] == spec.shape


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_evaluates_and_samples(preset):
    spec, config = SPECS.get(preset, IMAGES), small(preset)
    if preset not in ("smoke", "imagenet64"):  # one U-Net and one transformer to compile
        config = perceptron(config)
    metrics, found, out = run(config, spec)
    assert np.isfinite(metrics["loss"]).all() and np.isfinite(found["nats"]).all()
    assert found["nats"].shape == (8,) and out.x.shape == (4, *spec.shape)
    assert int(out.nfe) >= 3
    if spec.num_values:
        assert out.x.dtype == np.int32
        assert out.x.min() >= 0 and out.x.max() < spec.num_values
        assert out.trajectory.dtype == np.int32


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes, labels",
    [
        ({"sample__guidance": 2.0, "sample__rescale": 0.7}, True),
        ({"evaluate__likelihood": "flow"}, False),
        ({"sample__name": "adaptive"}, False),
        ({"sample__corrector_steps": 1, "sample__name": "euler_maruyama"}, False),
        ({"path__name": "linear", "loss__head": "velocity", "loss__times": "logit_normal"}, False),
    ],
)
def test_options(changes, labels):
    config = perceptron(small("smoke", **changes))
    config.labels = labels
    metrics, found, out = run(config, IMAGES, labels)
    assert np.isfinite(metrics["loss"]).all() and np.isfinite(found["nats"]).all()
    assert out.x.shape == (4, 8, 8, 1)


def test_the_profile_and_the_field_of_a_plane():
    method, batch = methods.build(small("toy"), PLANE), batch_of(PLANE)
    state = jax.jit(method.init)(jax.random.key(0))
    found = jax.jit(method.profile)(state, jax.random.key(1), batch)
    assert (np.diff(found["log_snr"]) < 0).all() and np.isfinite(found["loss"]).all()
    v = jax.jit(method.field)(state, batch["x"], np.full(8, 0.5, np.float32))
    # A new network predicts v = 0: on a variance-preserving path x0 = alpha x, eps = sigma x, and
    # the flow of N(0, 1) stands still.
    np.testing.assert_allclose(v, 0, atol=1e-5)


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"loss__head": "noise"}, "config.loss.head='noise' is unknown"),
        ({"loss__weighting": "snr"}, "config.loss.weighting='snr' is unknown"),
        ({"loss__variance": "learned"}, "config.loss.variance='learned' needs config.loss.steps"),
        ({"loss__t_min": 0.0}, "config.loss.t_min=0.0"),
        ({"loss__steps": -5}, "config.loss.steps=-5"),
        ({"loss__variance": "learned", "loss__steps": 1}, "config.loss.steps of at least 2"),
        (
            {"loss__variance": "learned", "loss__steps": 9, "loss__weighting": "eps"},
            "config.loss.weighting='eps' is not for",
        ),
        ({"loss__steps": 9, "loss__times": "late"}, "config.loss.times='late' is unknown"),
        ({"path__name": "learned"}, "config.loss.weighting='simple'.* valid: likelihood"),
        (
            {"path__name": "learned", "loss__weighting": "likelihood", "loss__data_std": 0.5},
            "config.loss.data_std=0.5",
        ),
        (
            {"sample__name": "adaptive", "sample__corrector_steps": 3},
            "corrector_steps=3: .*adaptive",
        ),
        ({"sample__corrector_steps": -1}, "corrector_steps=-1 must be 0 or more"),
        ({"sample__name": "adaptve"}, "'adaptve' is unknown; valid: adaptive, "),
        ({"loss__data_std": 0.0}, "config.loss.data_std=0.0 must be positive"),
        ({"loss__label_dropout": -3.0}, "config.loss.label_dropout=-3.0"),
        ({"optimizer__ema": 1.5}, "config.optimizer.ema=1.5"),
        ({"path__name": "learned", "path__high": -8.0, "path__low": 10.0}, "config.path.high=-8.0"),
        ({"path__alpha_min": 2.0}, "config.path.alpha_min=2.0"),
        ({"sample__name": "unipc", "sample__corrector_steps": 1}, "config.sample.corrector_steps"),
        ({"path__name": "ddmp"}, "config.path.name='ddmp' is unknown"),
        ({"path__name": "karras", "path__high": 0.001}, "config.path.high=0.001 must exceed"),
        ({"sample__steps": 0}, "config.sample.steps=0 must be at least 1"),
        ({"sample__name": "dpm"}, "config.sample.name='dpm' is unknown"),
        ({"sample__grid": "cosine"}, "config.sample.grid='cosine' is unknown"),
        ({"sample__guidance": 2.0}, "config.sample.guidance=2.0 needs labels"),
        ({"sample__name": "ddim", "sample__eta": -1.0}, "config.sample.eta"),
        ({"evaluate__likelihood": "exact"}, "config.evaluate.likelihood='exact' is unknown"),
        ({"network__channels": (8, 8, 8, 8, 8)}, "config.network.channels"),
    ],
)
def test_mistakes_are_named(changes, text):
    with pytest.raises(UserError, match=text):
        methods.build(small("digits", **changes), IMAGES)


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"loss__label_dropout": 0.0, "sample__guidance": 2.0}, "config.loss.label_dropout in"),
        ({"sample__guidance": float("nan")}, "config.sample.guidance=nan; valid: a number"),
    ],
)
def test_mistakes_with_labels_are_named(changes, text):
    config = small("digits", **changes).unlock()
    config.labels = True
    with pytest.raises(UserError, match=text):
        methods.build(config, IMAGES)


def test_values_without_an_order_are_named():
    with pytest.raises(UserError, match="values without an order"):
        methods.build(small("digits"), IMAGES._replace(ordinal=False))


@pytest.mark.parametrize("spec", [
    DataSpec((3,), 0, "sphere"),
    DataSpec((2,), 0, "counts"),
    DataSpec({"position": (3,), "rotation": (3, 3)}, 0, "poses"),
])  # fmt: skip
def test_data_of_other_spaces_are_named(spec):
    with pytest.raises(UserError, match=f"kind '{spec.kind}'; valid here: levels"):
        methods.build(small("toy"), spec)


def test_data_that_do_not_fit():
    config = small("toy").unlock()
    config.labels = True
    with pytest.raises(UserError, match="config.labels=True"):
        methods.build(config, PLANE)
    config = small("toy", loss__steps=10)
    with pytest.raises(UserError, match="decodes values on levels"):
        methods.build(config, PLANE)
    method = methods.build(small("toy"), PLANE)
    assert "not finite" in method.check(np.asarray([[np.nan, 0.0]]))
