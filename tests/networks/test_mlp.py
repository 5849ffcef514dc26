import jax
import jax.numpy as jnp
import optax
import pytest

from gmjax import networks
from gmjax.types import DataSpec

KEY = jax.random.key(0, impl="rbg")


def test_the_paper_s_glyph_network_is_small():
    spec = DataSpec((2,), 32, "vector", ordinal=True)
    net = networks.build({"name": "mlp", "width": 16, "blocks": 2}, spec, 32)
    params = jax.eval_shape(net.init, KEY, jnp.zeros((1, 2), int), jnp.ones(1))
    assert networks.num_params(params) < 10_000


@pytest.mark.slow
def test_learns_a_table_of_state_and_time():
    """The answer is x below t = 1/2 and the other site above: needs sites, states and time."""
    spec = DataSpec((2,), 4, "vector")
    net = networks.build({"name": "mlp", "width": 32, "embed": 8}, spec, 4)
    k1, k2 = jax.random.split(KEY)
    x, t = jax.random.randint(k1, (512, 2), 0, 4), jax.random.uniform(k2, (512,))
    answer = jnp.where(t[:, None] < 0.5, x, x[:, ::-1])
    params, opt = jax.jit(net.init)(KEY, x, t), optax.adam(1e-2)

    def loss(p):
        return optax.softmax_cross_entropy_with_integer_labels(net.apply(p, x, t), answer).mean()

    def step(carry, _):
        p, s = carry
        value, g = jax.value_and_grad(loss)(p)
        update, s = opt.update(g, s)
        return (optax.apply_updates(p, update), s), value

    _, losses = jax.jit(lambda p: jax.lax.scan(step, (p, opt.init(p)), length=150))(params)
    assert losses[0] > 1.38 and losses[-1] < 0.1  # log 4 = 1.386; blind to time: > log(2) / 2
