"""One optimiser step: accumulation, the average, clipping and the schedule of the rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmjax.methods import combinators
from gmjax.methods.combinators import MODEL, Begin, Player, Rule
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

RULE = Rule(optax.sgd(0.1))


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
    [
        ("learning_rate", 0.0),
        ("warmup", -1),
        ("clip", -1.0),
        ("skip", -1.0),
        ("b1", 1.0),
        ("b2", -0.1),
        ("ema", 1.5),
        ("decay", "step"),
        ("name", "adamm"),
    ],
)
def test_bad_settings_are_named(key, value):
    with pytest.raises(UserError, match=f"config.optimizer.{key}"):
        combinators.optimizer({**CONFIG, key: value}, 10)


def test_the_section_of_a_player_is_named():
    with pytest.raises(UserError, match="config.critic_optimizer.clip=-1.0"):
        combinators.rule({**CONFIG, "clip": -1.0}, 10, section="critic_optimizer")


# -- several players: L_a = (a - b)^2 + sum_i x_i a, L_b = a b, whose gradients are known ---------


def tug():
    """Both losses, an example."""
    return {
        "a": lambda p, key, batch, step: ((p["a"] - p["b"]) ** 2 + batch["x"] * p["a"], {}),
        "b": lambda p, key, batch, step: (p["a"] * p["b"] + 0 * batch["x"], {}),
    }


@pytest.mark.parametrize("inner", [1, 3])
def test_players_move_in_turn_on_parts_of_the_batch(inner):
    losses, rate = tug(), 0.1
    players = {
        "a": Player(losses["a"], Rule(optax.sgd(rate), ema=0.0), steps=inner),
        "b": Player(losses["b"], Rule(optax.sgd(2 * rate), ema=0.0)),
    }
    start, update = combinators.play(lambda key: {"a": jnp.ones(()), "b": jnp.zeros(())}, players)
    x = jnp.arange(6.0)
    state, metrics = jax.jit(update)(start(jax.random.key(0)), jax.random.key(1), {"x": x})
    a, b = 1.0, 0.0
    for j in range(inner):
        a -= rate * (2 * (a - b) + float(x[j::inner].mean()))
    np.testing.assert_allclose(state.params["a"], a, rtol=1e-6)
    np.testing.assert_allclose(state.params["b"], b - 2 * rate * a, rtol=1e-6)  # the new a
    assert metrics.keys() == {"a_loss", "a_grad_norm", "b_loss", "b_grad_norm", "loss"}
    assert metrics["loss"] == metrics["b_loss"] and int(state.step) == 1


def test_a_loss_is_given_the_step():
    player = Player(lambda p, key, batch, step: (p["m"] * step + 0 * batch["x"], {}), RULE)
    start, update = combinators.play(lambda key: {"m": jnp.ones(())}, {"m": player})
    state = start(jax.random.key(0))
    moved = []
    for _ in range(3):
        before, (state, _) = state, update(state, jax.random.key(0), {"x": jnp.ones(2)})
        moved.append(float(before.params["m"] - state.params["m"]))
    np.testing.assert_allclose(moved, [0.0, 0.1, 0.2], atol=1e-6)


def test_large_gradients_are_left_out_and_counted():
    player = Player(
        lambda p, key, batch, step: loss(p[MODEL], key, batch), Rule(optax.adam(0.1), skip=5.0)
    )
    start, update = combinators.play(lambda key: {MODEL: init(key)}, {MODEL: player})
    state = start(jax.random.key(0))
    for scale, skipped in ((1e3, 1.0), (jnp.nan, 1.0), (1e-3, 0.0)):
        batch = jax.tree.map(lambda a, s=scale: s * a, data())
        after, metrics = update(state, jax.random.key(1), batch)
        assert metrics["skipped"] == skipped
        same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), after[1:], state[1:])
        assert all(jax.tree.leaves(same)) == bool(skipped) and int(after.step) == 1


def test_parameters_begin_from_the_data_and_the_rate_goes_on():
    begin = Begin(lambda step: step == 2, lambda p, key, batch: {MODEL: {"w": batch["x"].mean(0)}})
    rule = Rule(combinators.optimizer({**CONFIG, "warmup": 0}, 10))
    player = Player(lambda p, key, batch, step: loss(p[MODEL], key, batch), rule)
    start, update = combinators.play(lambda key: {MODEL: init(key)}, {MODEL: player}, begin)
    update, batch, states = jax.jit(update), data(), [start(jax.random.key(0))]
    for i in range(3):
        states.append(update(states[-1], jax.random.key(i), batch)[0])
    count = lambda state: int(optax.tree_utils.tree_get(state.opt_state, "ScaleByScheduleState")[0])
    assert [count(state) for state in states] == [0, 1, 2, 3]
    # The first step of Adam from moments of zero is the rate times the gradient's sign.
    mean = np.asarray(batch["x"].mean(0))
    rate = combinators.DECAYS["cosine"](0.1, 0, 10)(2)
    moved = np.asarray(states[3].params[MODEL]["w"]) - mean
    np.testing.assert_allclose(np.abs(moved), rate, rtol=1e-4)
    # The average starts there too: its decay at step 2 is 3 / 12.
    np.testing.assert_allclose(states[3].ema[MODEL]["w"], mean + 0.75 * moved, rtol=1e-4)


@pytest.mark.parametrize("name", combinators.OPTIMIZERS)
def test_every_optimizer_descends_and_reads_its_memories(name):
    batch, ends = data(), []
    whole = lambda state: jnp.mean(loss(state.params, None, batch)[0])
    for b1, b2 in ((0.9, 0.999), (0.5, 0.9)):
        config = {**CONFIG, "name": name, "decay": "constant", "b1": b1, "b2": b2}
        transform = combinators.optimizer({**config, "learning_rate": 0.02}, 40)
        start, update = combinators.from_loss(init, loss, transform)

        def step(state, i, update=update):
            row = jax.tree.map(lambda a: a[i % 8][None], batch)
            return update(state, jax.random.key(0), row)[0], None

        begun = start(jax.random.key(0))
        ends.append(float(whole(jax.lax.scan(step, begun, jnp.arange(40))[0])))
        assert ends[-1] < 0.9 * whole(begun)
    assert ends[0] != ends[1]


@pytest.mark.parametrize("decay", combinators.DECAYS)
def test_without_a_warm_up_the_first_step_has_the_full_rate(decay):
    np.testing.assert_allclose(combinators.DECAYS[decay](0.1, 0, 10)(0), 0.1, rtol=1e-6)
