"""What every network of the table must do."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from gmjax import networks
from gmjax.types import DataSpec, UserError

# Compile time is the cost here: cheap random bits, and no optimisation.
KEY = jax.random.key(0, impl="rbg")
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
IMAGE = DataSpec((4, 4, 1), 5, "image", ordinal=True, num_classes=3)
SPECS = {
    "image": IMAGE,
    "colour": DataSpec((4, 2, 3), 5, "image", ordinal=True),
    "sequence": DataSpec((6,), 5, "sequence"),
    "vector": DataSpec((2,), 5, "vector", ordinal=True),
}
SMALL = {
    "mlp": {"width": 8, "embed": 4},
    "transformer": {"width": 16, "blocks": 2, "heads": 2, "embed": 4, "patch": 2},
    "unet": {"channels": (8, 16)},
}
IMAGES_ONLY = {"unet"}
BOTH = [
    (name, kind)
    for name in networks.NETWORKS
    for kind in SPECS
    if kind in ("image", "colour") or name not in IMAGES_ONLY
]


def make(name, spec=IMAGE, num_states=6, **config):
    return networks.build({"name": name, **SMALL[name], **config}, spec, num_states)


def batch(spec=IMAGE, size=3, num_states=6):
    x = jax.random.randint(KEY, (size, *spec.shape), 0, num_states)
    return x, jnp.linspace(0.1, 0.9, size)


class Model(NamedTuple):
    """A small network with random parameters."""

    net: Any
    params: Any
    apply: Callable[..., Any]


@pytest.fixture(scope="module", params=networks.NETWORKS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, random_params):
    net = make(name)
    return Model(net, random_params(net, *batch()), jit(net.apply))


@pytest.mark.parametrize(("name", "kind"), BOTH)
def test_shapes_and_dtypes(name, kind):
    net, (x, t) = make(name, SPECS[kind]), batch(SPECS[kind])
    logits, params = jax.eval_shape(net.init_with_output, KEY, x, t)
    assert logits.shape == (*x.shape, 5) and logits.dtype == jnp.float32
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_starts_uniform(name):
    logits, _ = jit(make(name).init_with_output)(KEY, *batch())
    assert not logits.any()


def test_time_is_a_float(model):
    _, params, apply = model
    x, _ = batch()
    at = lambda t: apply(params, x, jnp.full((3,), t))
    assert jnp.abs(at(0.1) - at(0.2)).max() > 1e-3
    assert jnp.abs(at(0.01) - at(0.012)).max() > 1e-4


def test_label_and_the_null_label(model):
    _, params, apply = model
    x, t = batch()
    given = lambda label: apply(params, x, t, {"label": jnp.array(label)})
    a, b, none = given([0, 1, 3]), given([0, 2, 3]), apply(params, x, t)
    moved = jnp.abs(a - b).reshape(3, -1).max(1)
    assert moved[0] == moved[2] == 0 and moved[1] > 1e-3
    moved = jnp.abs(a - none).reshape(3, -1).max(1)
    assert moved[2] < 1e-5 and moved[:2].min() > 1e-3


def test_every_logit_depends_on_every_site(model):
    """Distinguishes states, mask included, and mixes sites; examples stay apart."""
    _, params, apply = model
    x, t = batch()
    base = apply(params, x, t)
    for state in range(6):
        changed = x.at[1, 0, 0, 0].set(state)
        moved = jnp.abs(apply(params, changed, t) - base).max(-1)
        assert moved[0].max() == moved[2].max() == 0
        assert (moved[1].min() > 1e-7) == (state != x[1, 0, 0, 0])


def test_dropout_only_when_training(name, model):
    _, params, still = model
    x, t = batch()
    apply = jit(make(name, dropout=0.5).apply, static_argnames="train")
    drop = lambda seed: apply(
        params, x, t, train=True, rngs={"dropout": jax.random.key(seed, impl="rbg")}
    )
    assert (drop(0) == drop(0)).all() and jnp.abs(drop(0) - drop(1)).max() > 1e-3
    np.testing.assert_allclose(apply(params, x, t), still(params, x, t), rtol=1e-6)


def test_bfloat16_is_close_to_float32(name, model):
    _, params, apply = model
    x, t = batch()
    exact, close = apply(params, x, t), jit(make(name, dtype="bfloat16").apply)(params, x, t)
    assert close.dtype == jnp.float32
    error = jnp.abs(exact - close).max() / jnp.abs(exact).max()
    assert 1e-6 < error < 0.03  # bfloat16 keeps 8 bits, 0.4 % a rounding


@pytest.mark.slow
def test_gradients_are_finite_and_reach_every_parameter(name, model):
    net, (x, t) = make(name, smoothing=1.0), batch()
    x = x.at[0].set(5)  # all masked
    cond = {"label": jnp.array([0, 1, 2])}
    loss = lambda p: -jax.nn.log_softmax(net.apply(p, x, t, cond))[..., 0].sum()
    grads = jit(jax.grad(loss))(model.params)
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.isfinite(g).all() and jnp.abs(g).max() > 0, path


@pytest.mark.parametrize("network", ["mlp", "transformer"])
def test_logistic_head(network, random_params):
    net, (x, t) = make(network, head="logistic"), batch()
    out = jit(net.apply)(random_params(net, x, t), x, t)
    assert out.shape == (*x.shape, 5)
    np.testing.assert_allclose(jnp.exp(out).sum(-1), 1, rtol=1e-5)


def test_num_params_counts_scalars():
    assert networks.num_params({"a": jnp.ones((2, 3)), "b": [jnp.ones(()), jnp.ones(4)]}) == 11


def test_a_config_dict_will_do():
    config = ConfigDict({"name": "mlp", "width": 8, "dropout": None})
    assert networks.build(config, IMAGE, 6).width == 8


BAD = [
    ({"name": "resnet"}, "config.network.name='resnet'"),
    ({}, "config.network.name"),
    ({"name": "mlp", "width": 0}, "config.network.width=0"),
    ({"name": "mlp", "pitch": 2}, "config.network.pitch=2"),
    (
        {"name": "unet", "channels": (8, 8), "attention": (5,)},
        "attention=\\(5,\\).*there are 2 levels",
    ),
    ({"name": "transformer", "blocks": -1}, "config.network.blocks=-1"),
    ({"name": "transformer", "patch": 3}, "config.network.patch=3.*4 x 4"),
    ({"name": "transformer", "heads": 5}, "config.network.heads=5.*width=128"),
    ({"name": "transformer", "width": 12, "heads": 2}, "config.network.heads=2.*multiple of 4"),
    ({"name": "transformer", "dtype": "float16"}, "config.network.dtype='float16'.*bfloat16"),
    (
        {"name": "transformer", "attention_by": "flash"},
        "config.network.attention_by=.flash..*plain",
    ),
]


@pytest.mark.parametrize(("config", "message"), BAD)
def test_mistakes_are_told_at_build_time(config, message):
    with pytest.raises(UserError, match=message) as error:
        networks.build(config, IMAGE, 6)
    assert "\n" not in str(error.value)


def test_keys_of_other_networks_do_not_count():
    """A preset may hold the U-Net's keys when the command line asks for another network."""
    both = networks.build({"name": "mlp", "width": 8, "channels": (4, 4), "patch": 2}, IMAGE, 6)
    assert both == networks.build({"name": "mlp", "width": 8}, IMAGE, 6)
