"""One optimiser step: accumulation, the average, clipping and the schedule of the rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmjax.methods import combinators
from gmjax.types import UserError

CONFIG = {
    "name": "adamw",
    "learning_rate": 0.1,
    "warmup": 2,
    "decay": "cosine",
    "weight_decay": 0.0,
    "b2": 0.999,
    "clip": 1.0,
}


def loss(params, key, batch):
    values = (batch["x"] @ params["w"] - batch["y"]) ** 2
    return values, {"squared": values}


def data(n=8):
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    return {"x": jnp.asarray(x), "y": jnp.asarray(x @ np.array([1.0, -2, 3], np.float32))}


def init(key):
    return {"w": jax.random.normal(key, (3,))}


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulated_gradients_are_the_gradients_of_the_batch(parts):
    states = []
    for accumulate in (1, parts):
        start, update = combinators.from_loss(init, loss, optax.sgd(0.1), accumulate=accumulate)
        state, metrics = update(start(jax.random.key(0)), jax.random.key(1), data())
        states.append((state.params["w"], metrics["loss"], metrics["squared"]))
    for one, many in zip(*states, strict=True):
        np.testing.assert_allclose(one, many, rtol=1e-5)


def test_update_is_a_gradient_step_and_the_average_follows():
    start, update = combinators.from_loss(init, loss, optax.sgd(0.1), ema=0.9)
    state = start(jax.random.key(0))
    w = state.params["w"]
    batch = data()
    grad = jax.grad(lambda w: jnp.mean(loss({"w": w}, None, batch)[0]))(w)
    after, metrics = update(state, jax.random.key(1), batch)
    np.testing.assert_allclose(after.params["w"], w - 0.1 * grad, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], jnp.linalg.norm(grad), rtol=1e-5)
    # The decay warms up as (1 + n) / (10 + n): a tenth at the first step.
    np.testing.assert_allclose(after.ema["w"], 0.1 * w + 0.9 * after.params["w"], rtol=1e-5)
    for i in range(300):
        after, _ = update(after, jax.random.key(i), batch)
    late, _ = update(after, jax.random.key(0), batch)
    np.testing.assert_allclose(
        late.ema["w"], 0.9 * after.ema["w"] + 0.1 * late.params["w"], rtol=1e-5
    )


def test_the_state_shares_no_buffer_and_can_be_donated():
    start, update = combinators.from_loss(init, loss, optax.adam(0.1))
    step = jax.jit(update, donate_argnums=0)
    state = start(jax.random.key(0))
    for _ in range(2):
        state, _ = step(state, jax.random.key(0), data())
    assert int(state.step) == 2


@pytest.mark.parametrize("decay, end", [("cosine", 0.0), ("linear", 0.0), ("constant", 0.1)])
def test_rate_warms_up_and_decays_over_the_run(decay, end):
    rate = combinators.DECAYS[decay](0.1, 2, 10)
    np.testing.assert_allclose([rate(0), rate(1), rate(2)], [0, 0.05, 0.1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(rate(10), end, atol=1e-7)


def test_large_gradients_are_clipped():
    transform = combinators.optimizer({**CONFIG, "name": "sgd", "warmup": 0}, 10)
    grads = {"w": jnp.asarray([300.0, 400.0])}
    updates, _ = transform.update(grads, transform.init(grads), grads)
    # A rate of 0.1 times a gradient of norm one.
    assert float(optax.global_norm(updates)) <= 0.1 + 1e-5


@pytest.mark.parametrize(
    "key, value",
    [("learning_rate", 0.0), ("warmup", -1), ("clip", -1.0), ("decay", "step"), ("name", "adamm")],
)
def test_bad_settings_are_named(key, value):
    with pytest.raises(UserError, match=f"config.optimizer.{key}"):
        combinators.optimizer({**CONFIG, key: value}, 10)


@pytest.mark.parametrize("decay", combinators.DECAYS)
def test_without_a_warm_up_the_first_step_has_the_full_rate(decay):
    np.testing.assert_allclose(combinators.DECAYS[decay](0.1, 0, 10)(0), 0.1, rtol=1e-6)
