"""What every network of continuous states must do."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import sections
from gmjax.networks import continuous, embeddings
from gmjax.types import DataSpec, UserError

# Compile time is the cost here: cheap random bits, and no optimisation.
KEY = jax.random.key(0, impl="rbg")
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SHAPES = {"image": (4, 8, 3), "sequence": (6, 2), "vector": (4,), "euclidean": (2,)}
SMALL = {
    "mlp": {"width": 16, "blocks": 1, "frequencies": 8},
    "transformer": {"width": 16, "blocks": 1, "heads": 2},
    "unet": {"channels": (8, 16), "attention": (1,)},
}
BOTH = [(n, kind) for n in SMALL for kind in SHAPES if kind == "image" or n != "unet"]
T = jnp.linspace(0.1, 0.9, 3)
COND = {"label": jnp.array([0, 1, 3]), "context": jnp.eye(3)}


def make(network, shape=SHAPES["image"], outputs=1, **config):
    spec = DataSpec(shape, 0, num_classes=3)
    return continuous.build({"name": network, **SMALL[network], **config}, spec, outputs)


def batch(shape=SHAPES["image"]):
    return jax.random.normal(KEY, (3, *shape))


@pytest.fixture(scope="module", params=continuous.CONTINUOUS)
def name(request):
    return request.param


class Model(NamedTuple):
    """A small network with random parameters."""

    net: Any
    params: Any
    apply: Callable[..., Any]
    grad: Callable[..., Any]  # params -> gradient of the square error to a fixed answer


@pytest.fixture(scope="module")
def model(name, random_params):
    net, answer = make(name), jax.random.normal(jax.random.key(1), batch().shape)
    square = lambda p: ((net.apply(p, batch(), T, COND) - answer) ** 2).sum()
    return Model(net, random_params(net, batch(), T, COND), jit(net.apply), jit(jax.grad(square)))


def test_the_table_and_its_settings_agree():
    assert set(continuous.CONTINUOUS) == set(continuous.SETTINGS) == set(SMALL)
    assert {kind for _, kind in BOTH} == set(SHAPES)


@pytest.mark.parametrize(("name", "kind"), BOTH)
@pytest.mark.parametrize("outputs", [1, 2])
def test_shapes_and_dtypes(name, kind, outputs):
    x = batch(SHAPES[kind])
    net = make(name, SHAPES[kind], outputs, dtype="bfloat16")
    out, params = jax.eval_shape(net.init_with_output, KEY, x, T, COND)
    assert out.shape == (x.shape if outputs == 1 else (*x.shape, outputs))
    assert {a.dtype for a in jax.tree.leaves((out, params))} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_starts_at_zero_and_updates_open_the_way_of_state_time_label_and_context(model):
    """The last layer starts at zero, and so do the layers through which conditioning enters."""
    _, _, apply, grad = model
    x = batch()
    params = jax.tree.map(np.asarray, jit(model.net.init)(KEY, x, T, COND))
    assert not apply(params, x, T, COND).any()
    for _ in range(3):
        found = jax.tree.map(np.asarray, grad(params))
        size = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(found)))
        params = jax.tree.map(lambda p, g, size=size: p - g / size, params, found)
    base = apply(params, x, T, COND)
    moved = lambda *args: jnp.abs(apply(params, *args) - base).reshape(3, -1).max(1)
    others = (
        (x.at[1].add(0.5), T, COND),
        (x, T.at[1].add(0.05), COND),
        (x, T, {**COND, "label": jnp.array([0, 2, 3])}),
        (x, T, {**COND, "context": COND["context"].at[1, 0].add(1)}),
    )
    for args in others:
        change = moved(*args)
        assert change[1] > 1e-4 and change[0] == change[2] == 0
    without = moved(x, T, {"context": COND["context"]})  # the null class is the last
    assert without[2] < 1e-5 and without[:2].min() > 1e-4


def test_bfloat16_is_close_to_float32(name, model):
    exact = model.apply(model.params, batch(), T, COND)
    close = jit(make(name, dtype="bfloat16").apply)(model.params, batch(), T, COND)
    error = jnp.abs(exact - close).max() / jnp.abs(exact).max()
    assert 1e-6 < error < 0.03  # bfloat16 keeps 8 bits, 0.4 % a rounding


@pytest.mark.parametrize("name", ["transformer", pytest.param("unet", marks=pytest.mark.slow)])
def test_remat_changes_memory_and_nothing_else(name, random_params):
    plain, remat = make(name, dropout=0.3), make(name, dropout=0.3, remat=True)
    x = batch()
    params = random_params(plain, x, T)

    def value_and_grad(net):
        rngs = {"dropout": KEY}
        return jax.value_and_grad(lambda p: (net.apply(p, x, T, train=True, rngs=rngs) ** 2).mean())

    both = [jax.tree.leaves(jit(value_and_grad(net))(params)) for net in (plain, remat)]
    largest = max(float(jnp.abs(a).max()) for a in both[0])
    for a, b in zip(*both, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest)
    count = lambda net: str(jax.make_jaxpr(value_and_grad(net))(params)).count("remat")
    assert count(plain) == 0 and count(remat) > 0


@pytest.mark.slow
def test_gradients_are_finite_and_reach_every_parameter(model):
    for path, g in jax.tree_util.tree_leaves_with_path(model.grad(model.params)):
        assert jnp.isfinite(g).all() and jnp.abs(g).max() > 0, path


def test_dropout_only_when_training(name, model):
    apply = jit(make(name, dropout=0.5).apply, static_argnames="train")
    drop = lambda seed: apply(
        model.params, batch(), T, COND, train=True, rngs={"dropout": jax.random.key(seed)}
    )
    assert jnp.abs(drop(0) - drop(1)).max() > 1e-3
    still = jax.make_jaxpr(make(name, dropout=0.5).apply)(model.params, batch(), T, COND)
    assert str(still) == str(jax.make_jaxpr(model.net.apply)(model.params, batch(), T, COND))


@pytest.mark.parametrize("positions", continuous.POSITIONS)
def test_patches_are_exchangeable_without_positions_only(positions, random_params):
    """Moving the patches of an image, here 2 x 4 of them, moves those of the output."""
    net, x = make("transformer", positions=positions), batch()
    params, apply = random_params(net, x, T), jit(net.apply)
    order = np.array([3, 0, 6, 1, 7, 5, 2, 4])

    def move(x):
        cells = x.reshape(3, 2, 2, 4, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(3, 8, 2, 2, 3)
        cells = cells[:, order].reshape(3, 2, 4, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5)
        return cells.reshape(x.shape)

    same = jnp.allclose(apply(params, move(x), T), move(apply(params, x, T)), atol=1e-4)
    assert same == (positions == "none")


def test_outputs_leave_at_their_own_patch(random_params):
    """Without blocks that mix them, a patch gives the outputs of its own entries."""
    net, x = make("transformer", outputs=2), batch()
    params = random_params(net, x, T)
    gates = params["params"]["block_0"]["Modulation_0"]["Dense_0"]  # closed: the block does nothing
    gates["kernel"], gates["bias"] = 0 * gates["kernel"], 0 * gates["bias"]
    moved = x.at[1, 2, 5, 0].add(1.0)  # in the patch of rows 2, 3 and columns 4, 5
    apply = jit(net.apply)
    change = jnp.abs(apply(params, moved, T) - apply(params, x, T)).max((-1, -2))
    patch = np.zeros((3, 4, 8), bool)
    patch[1, 2:, 4:6] = True
    assert ((change > 1e-4) == patch).all()


def test_sinusoidal_positions_are_unit_features_that_tell_cells_apart():
    p = embeddings.sinusoidal_positions((5, 7), 33)
    assert p.shape == (35, 33) and not p[:, 32:].any()
    np.testing.assert_allclose((p[:, :32] ** 2).mean(1), 1, rtol=1e-5)
    gaps = jnp.linalg.norm(p[:, None] - p, axis=-1) + 9 * jnp.eye(35)
    assert gaps.min() > 0.5


BAD = [
    (
        "unet",
        {"name": "resnet", "channels": (8,)},
        "config.network.name='resnet' is unknown; valid: mlp",
    ),
    ("unet", {"channels": (8, 8, 8, 8)}, r"config.network.channels=.*divisible by 8.*\(4, 8\)"),
    ("unet", {"attention": (2,)}, r"config.network.attention=\(2,\).*2 levels"),
    ("transformer", {"patch": 3}, "config.network.patch=3.*4 x 8"),
    ("transformer", {"heads": 3}, "config.network.heads=3.*width=16"),
    ("transformer", {"heads": 8}, "config.network.heads=8.*multiple of 4"),
    ("transformer", {"positions": "learned"}, "config.network.positions='learned'.*rotary"),
    ("mlp", {"width": -1}, "config.network.width=-1"),
    ("mlp", {"wdith": 3}, "config.network.wdith=3 is unknown"),
]


@pytest.mark.parametrize(("name", "config", "message"), BAD)
def test_mistakes_are_told_at_build_time(name, config, message):
    with pytest.raises(UserError, match=message) as error:
        make(name, **config)
    assert "\n" not in str(error.value)


def test_networks_that_do_not_suit_the_shape():
    with pytest.raises(UserError, match="config.network.name='unet'.*needs images"):
        make("unet", (2,))
    with pytest.raises(UserError, match="config.network.positions='rotary'.*no order"):
        make("transformer", (4,), positions="rotary")
    with pytest.raises(UserError, match="config.network.name is missing"):
        continuous.build({}, DataSpec((2,), 0))


def test_another_number_of_channels_is_told(name):
    net = make(name)
    with pytest.raises(UserError, match=r"config.network.*\(4, 8, 3\).*\(4, 8, 1\)"):
        jax.eval_shape(net.init, KEY, batch((4, 8, 1)), T)


def test_sections_hold_every_key_and_keys_of_other_networks_do_not_count():
    section = sections.network("mlp", width=8, positions="none")
    assert {key for own in continuous.SETTINGS.values() for key in own} <= set(section)
    spec = DataSpec((2,), 0)
    assert continuous.build(section, spec) == continuous.build({"name": "mlp", "width": 8}, spec)
    assert continuous.build(ConfigDict({"name": "mlp", "width": 8}), spec).network.width == 8


def test_octaves_tell_levels_apart():
    x = jnp.linspace(-1, 1, 9)[:, None]
    seen = embeddings.octaves(x, 3)
    assert seen.shape == (9, 7)
    np.testing.assert_allclose(seen[:, 0], x[:, 0])
    np.testing.assert_allclose(seen[:, 3], np.sin(8 * np.pi * x[:, 0]), atol=1e-5)
    # Eight octaves of pi: every level is at the same phase of the last wave.
    np.testing.assert_allclose(seen[:, 6], 1, atol=1e-5)
    assert embeddings.octaves(x, 0) is not None and embeddings.octaves(x, 0).shape == (9, 1)
