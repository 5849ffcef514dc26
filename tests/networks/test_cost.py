"""Operations as XLA counts them against counts by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from gmjax import networks
from gmjax.networks import continuous
from gmjax.networks.transformer import plain_attention
from gmjax.types import DataSpec

B, L, C, H = 4, 32, 64, 8


class Dense(nn.Module):
    """Two dense layers."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(C)(nn.relu(nn.Dense(4 * C)(x)))


class Convolution(nn.Module):
    """One 3x3 convolution that keeps the sides."""

    @nn.compact
    def __call__(self, x):
        return nn.Conv(C, (3, 3))(x.reshape(B, 8, 8, -1))


class Attention(nn.Module):
    """Queries, keys and values from one layer, and what they mix to."""

    @nn.compact
    def __call__(self, x):
        qkv = nn.Dense(3 * C)(x).reshape(B, L, 3, H, C // H)
        return plain_attention(*qkv.transpose(2, 0, 3, 1, 4))


# A 3x3 stencil on n x n cells has (3 n - 2)^2 terms, since it is cut at the edges.
BY_HAND = {
    Dense: (2 * 4 * C * C + 5 * C, 2 * B * L * 2 * 4 * C * C),
    Convolution: (9 * L * C + C, 2 * B * (3 * 8 - 2) ** 2 * L * C),
    Attention: (3 * C * C + 3 * C, 2 * B * L * C * (3 * C + 2 * L)),
}
INPUTS = {Convolution: (B, 64 * L)}


@pytest.mark.parametrize("layer", BY_HAND, ids=lambda layer: layer.__name__)
def test_a_layer_s_cost_is_the_count_by_hand(layer):
    x, net = jax.ShapeDtypeStruct(INPUTS.get(layer, (B, L, C)), jnp.float32), layer()
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    found, (parameters, flops) = networks.cost(net.apply, params, x), BY_HAND[layer]
    assert found.parameters == parameters
    # Biases, activations and the softmax are operations too, a few for each number.
    assert flops < found.flops < 1.06 * flops


def test_a_transformer_s_cost_is_that_of_its_matrix_products():
    width, blocks, tokens, entries = 128, 3, 64, 4 * 3
    config = {"name": "transformer", "width": width, "blocks": blocks, "patch": 2}
    net = continuous.build(config, DataSpec((16, 16, 3), 0))
    x = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    t = jax.ShapeDtypeStruct((2,), jnp.float32)
    found = networks.cost(net.apply, jax.eval_shape(net.init, jax.random.key(0), x, t), x, t)
    block = tokens * (12 * width**2 + 2 * tokens * width) + 6 * width**2  # and its modulation
    ends = 2 * tokens * entries * width + 4 * width**2
    assert found.flops == pytest.approx(2 * 2 * (blocks * block + ends), rel=0.06)
    parameters = blocks * (12 + 6) * width**2 + 2 * entries * width + 4 * width**2
    assert found.parameters == pytest.approx(parameters, rel=0.02)
    one = (
        jax.eval_shape(net.init, jax.random.key(0), x, t),
        *(jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype) for a in (x, t)),
    )
    assert found.flops == pytest.approx(2 * networks.cost(net.apply, *one).flops, rel=1e-3)
