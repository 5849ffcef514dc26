import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax import networks
from gmjax.networks import transformer
from gmjax.types import DataSpec

# Compile time is the cost here: cheap random bits, and no optimisation.
KEY = jax.random.key(0, impl="rbg")
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SPEC = DataSpec((4, 4, 1), 5, "image", num_classes=3)
CONFIG = {"name": "transformer", "width": 16, "blocks": 1, "heads": 2, "embed": 4, "patch": 2}


def make(spec=SPEC, **config):
    return networks.build({**CONFIG, **config}, spec, 6)


@pytest.mark.parametrize(
    ("shape", "patch", "axes"),
    [((2, 6), 1, 1), ((2, 6), 3, 1), ((2, 4, 6, 3), 2, 2), ((2, 4, 6, 3, 5), 2, 2)],
)
def test_patchify_round_trip(shape, patch, axes):
    x = jnp.arange(np.prod(shape)).reshape(shape)
    patches = transformer.patchify(x, patch, axes)
    grid = [n // patch for n in shape[1 : axes + 1]]
    assert patches.shape == (2, np.prod(grid), patch**axes, *shape[axes + 1 :])
    assert (transformer.unpatchify(patches, patch, grid) == x).all()


def test_patchify_cuts_neighbours():
    x = jnp.arange(16).reshape(1, 4, 4)
    want = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert transformer.patchify(x, 2, 2)[0].tolist() == want
    one = transformer.patchify(jnp.arange(6)[None], 2, 1)
    assert one[0].tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_plain_attention_is_the_library_s(dtype):
    q, k, v = jax.random.normal(KEY, (3, 2, 4, 7, 8)).astype(dtype)
    plain, xla = (jit(transformer.ATTENTION[name])(q, k, v) for name in ("plain", "xla"))
    assert plain.dtype == xla.dtype == jnp.dtype(dtype)
    tolerance = 1e-5 if dtype == "float32" else 3e-2
    np.testing.assert_allclose(plain.astype("f"), xla.astype("f"), atol=tolerance)
    scores = np.einsum("bhtd,bhsd->bhts", *(np.asarray(a, np.float64) for a in (q, k)))
    weights = np.exp(scores / np.sqrt(8))
    want = np.einsum("bhts,bhsd->bhtd", weights, np.asarray(v, np.float64))
    np.testing.assert_allclose(plain, want / weights.sum(-1, keepdims=True), atol=tolerance)


def test_remat_changes_memory_and_nothing_else(random_params):
    x, t = jax.random.randint(KEY, (3, 4, 4, 1), 0, 6), jnp.array([0.1, 0.4, 0.9])
    plain, remat = make(dropout=0.3), make(dropout=0.3, remat=True)
    params = random_params(plain, x, t)

    def value_and_grad(net):
        rngs = {"dropout": KEY}
        loss = lambda p: (net.apply(p, x, t, train=True, rngs=rngs) ** 2).sum()
        return jax.value_and_grad(loss)

    both = [jax.tree.leaves(jit(value_and_grad(net))(params)) for net in (plain, remat)]
    for a, b in zip(*both, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    count = lambda net: str(jax.make_jaxpr(value_and_grad(net))(params)).count("remat")
    assert count(plain) == 0 and count(remat) > 0


def test_blocks_start_as_the_identity():
    c, h = jnp.ones((2, 8)), jax.random.normal(KEY, (2, 3, 8))
    block = transformer.Block(8, 2, 4, 0.0, "plain", jnp.float32)
    init = jit(block.init_with_output, static_argnums=(3, 4))
    out, _ = init(KEY, h, c, None, False)
    assert (out == h).all()


def test_a_vector_without_positions_would_be_exchangeable(random_params):
    """Sites of a vector have no rotary order: permuting them and their learned positions is
    permuting the output; a sequence has an order beyond the learned positions."""
    order = jnp.array([2, 0, 3, 1])
    x, t = jnp.array([[0, 1, 2, 3], [5, 1, 1, 4]]), jnp.array([0.3, 0.6])
    for kind, exchangeable in (("vector", True), ("sequence", False)):
        net = make(DataSpec((4,), 5, kind), patch=1)
        params = random_params(net, x, t)
        apply, moved = jit(net.apply), jax.tree.map(jnp.copy, params)
        moved["params"]["position"] = params["params"]["position"][order]
        same = jnp.allclose(apply(moved, x[:, order], t), apply(params, x, t)[:, order], atol=1e-5)
        assert same == exchangeable


def test_activations_have_unit_scale_at_initialisation():
    """Features, hidden layers and the residual stream: no layer shrinks or blows up."""
    net = make(width=128, heads=4)
    x, t = jax.random.randint(KEY, (8, 4, 4, 1), 0, 6), jnp.linspace(0.01, 1, 8)
    params = jit(net.init)(KEY, x, t)
    _, state = jit(functools.partial(net.apply, capture_intermediates=True))(params, x, t)
    seen = jax.tree_util.tree_leaves_with_path(state["intermediates"])
    live = [(jax.tree_util.keystr(p), float(a.std())) for p, a in seen if a.size and a.std() > 0]
    assert len(live) > 8 and all(0.3 < s < 3 for _, s in live), live
