r"""How losses become a training step: players that move in turn, each with its own optimiser.

A model has players, {name: `Player`}, whose parameters are {name: params}. With one player and
steps = 1 an update is one step of its optimiser on the mean of its loss. With several, player i
takes the gradient of its own loss in its own parameters,

    theta_i <- theta_i - rate * adjust_i( d/d theta_i  mean L_i(theta_1, .., theta_n) ),

in the order of the mapping, so that a later player sees the earlier ones where they are now. A
player with `steps` = k moves k times before the next one does: the batch is split into as many
parts as the largest k, and the j-th move of every player sees the j-th part.

Phases of training are functions of the step, which every loss is given: a weight that grows, a
`lax.switch` over stages. The tree of parameters stays the same, so a run resumes to the bit.
`Begin` starts parameters from data or codes within a step: at the steps that are `due`,

    params <- make(params, key, batch),    averages <- params,    moments <- 0,

while the schedule of the learning rate goes on. Moments that stay from an idle time are far too
small: the first update would be (1 - b1) / sqrt(1 - b2) learning rates long, 3 at b2 = .99.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmjax.types import Array, Key, PyTree, UserError, lookup

Config = Any
Batch = Mapping[str, Any]
# (params of all players, key, batch, step) -> values [B] and named parts {name: [B]}
PlayerLoss = Callable[[dict[str, PyTree], Key, Batch, Array], tuple[Array, dict[str, Array]]]
# (params, key, batch) -> values [B] and named parts {name: [B]}
BatchLoss = Callable[[PyTree, Key, Batch], tuple[Array, dict[str, Array]]]
MODEL = "model"  # the name of a player that is alone


class State(NamedTuple):
    """What training carries from step to step."""

    step: Array  # [] int32, updates done
    params: PyTree  # by player
    ema: PyTree  # exponential moving averages: what is evaluated and sampled
    opt_state: PyTree


class Player(NamedTuple):
    """Parameters with a loss of their own."""

    loss: PlayerLoss
    rule: "Rule"
    steps: int = 1  # moves an update


class Rule(NamedTuple):
    """How a player moves, from a section such as `config.optimizer`."""

    transform: optax.GradientTransformation
    ema: float = 0.999  # decay of the average of the parameters, reached after a warm-up
    accumulate: int = 1  # parts of a batch whose gradients are averaged
    skip: float = 0.0  # gradients of a larger norm are not applied; 0: all are


class Begin(NamedTuple):
    """Parameters that are made from data or codes during the training."""

    due: Callable[[Array], Array]  # step [] -> [] bool
    make: Callable[..., dict[str, PyTree]]  # (params, key, batch) -> params of all players


# The keys of a section such as `config.optimizer`; a learning_rate has no default.
DEFAULTS: dict[str, Any] = {
    "name": "adamw",
    "warmup": 0,  # steps from a rate of zero to the full one
    "decay": "cosine",
    "weight_decay": 0.0,
    "b1": 0.9,  # memory of the mean of gradients; the momentum of sgd
    "b2": 0.999,  # of their squares
    "clip": 0.0,  # largest norm of a gradient, longer ones are scaled; 0: any
    "skip": 0.0,  # gradients of a larger norm are left out and counted; 0: none
    "ema": 0.999,  # memory of the average of the parameters
}
OPTIMIZERS = {
    "adam": lambda rate, c: optax.adam(rate, c["b1"], c["b2"]),
    "adamw": lambda rate, c: optax.adamw(rate, c["b1"], c["b2"], weight_decay=c["weight_decay"]),
    "lion": lambda rate, c: optax.lion(rate, c["b1"], c["b2"], weight_decay=c["weight_decay"]),
    "rmsprop": lambda rate, c: optax.rmsprop(rate, decay=c["b2"]),
    "sgd": lambda rate, c: optax.sgd(rate, momentum=c["b1"]),
}
DECAYS = {
    "cosine": lambda peak, warmup, steps: optax.warmup_cosine_decay_schedule(
        0.0, peak, warmup, max(steps, warmup + 1)
    ),
    "constant": lambda peak, warmup, steps: (
        optax.linear_schedule(0.0, peak, warmup) if warmup else optax.constant_schedule(peak)
    ),
    "linear": lambda peak, warmup, steps: optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, max(warmup, 1)),
            optax.linear_schedule(peak, 0.0, max(steps - warmup, 1)),
        ],
        [warmup],
    ),
}


def optimizer(
    config: Mapping[str, Any], steps: int, section: str = "optimizer"
) -> optax.GradientTransformation:
    """The optimiser of `config.SECTION`, its rate laid out over `steps` updates.

    Args:
        config: the keys of `DEFAULTS` that differ from them, and a learning_rate.
        steps: updates of the whole run.
        section: its name, for the messages.

    Raises:
        UserError: a name that is in no table, or a number out of its range.
    """
    config = {**DEFAULTS, **config}
    key = f"config.{section}"
    for name in ("learning_rate",):
        if not config[name] > 0:
            raise UserError(f"{key}.{name}={config[name]} must be positive")
    for name in ("warmup", "weight_decay", "clip", "skip"):
        if config[name] < 0:
            raise UserError(f"{key}.{name}={config[name]} must not be negative")
    for name in ("b1", "b2", "ema"):
        if not 0 <= config[name] < 1:
            raise UserError(f"{key}.{name}={config[name]} must lie in [0, 1)")
    decay = lookup(DECAYS, config["decay"], f"{key}.decay")
    make = lookup(OPTIMIZERS, config["name"], f"{key}.name")
    rate = decay(config["learning_rate"], config["warmup"], steps)
    clip = optax.clip_by_global_norm(config["clip"]) if config["clip"] else optax.identity()
    return optax.chain(clip, make(rate, config))


def rule(
    config: Mapping[str, Any], steps: int, accumulate: int = 1, section: str = "optimizer"
) -> Rule:
    """How a player moves by `config.SECTION`; arguments and errors as of `optimizer`."""
    transform, config = optimizer(config, steps, section), {**DEFAULTS, **config}
    return Rule(transform, config["ema"], accumulate, config["skip"])


def play(
    init: Callable[[Key], dict[str, PyTree]],
    players: Mapping[str, Player],
    begin: Begin | None = None,
) -> tuple[Callable[[Key], State], Callable[..., tuple[State, dict[str, Array]]]]:
    """The `init` and `update` of a model whose players move in turn.

    Args:
        init: key -> {player: params}.
        players: in the order of their moves.
        begin: parameters that are made from data or codes within a step.

    Returns:
        init: key -> `State`; update: (state, key, batch) -> (state, {name: []}). The metrics are
        loss, grad_norm and the parts of a player that is alone; of several each one's under
        "PLAYER_NAME", and `loss` is that of the last.
    """
    most = max(player.steps for player in players.values())

    def start(key: Key) -> State:
        params = init(key)
        # A copy, because the state is donated and one buffer cannot be given away twice.
        average = jax.tree.map(jnp.copy, params)
        memory = {name: p.rule.transform.init(params[name]) for name, p in players.items()}
        return State(jnp.zeros((), jnp.int32), params, average, memory)

    def begun(state: State, key: Key, batch: Batch) -> State:
        assert begin is not None

        def made() -> State:
            params = begin.make(state.params, key, batch)
            memory = {
                name: restarted(p.rule.transform, params[name], state.opt_state[name])
                for name, p in players.items()
            }
            return State(state.step, params, jax.tree.map(jnp.copy, params), memory)

        return jax.lax.cond(begin.due(state.step), made, lambda: state)

    def update(state: State, key: Key, batch: Batch):
        if begin:
            key, key_begin = jax.random.split(key)
            state = begun(state, key_begin, batch)
        keys = [key] if len(players) == 1 else list(jax.random.split(key, len(players)))
        metrics: dict[str, Array] = {}
        for (name, player), own in zip(players.items(), keys, strict=True):
            move = _mover(name, player)
            if most == 1:
                state, found = move(state, (own, batch))
            else:
                parts = jax.tree.map(lambda a, k=player.steps: a[:k], interleaved(batch, most))
                state, found = jax.lax.scan(
                    move, state, (jax.random.split(own, player.steps), parts)
                )
                found = jax.tree.map(lambda a: jnp.mean(a, 0), found)
            prefix = "" if len(players) == 1 else f"{name}_"
            metrics |= {prefix + part: value for part, value in found.items()}
            metrics["loss"] = found["loss"]
        return state._replace(step=state.step + 1), metrics

    return start, update


def from_loss(
    init: Callable[[Key], PyTree],
    loss: BatchLoss,
    transform: optax.GradientTransformation,
    ema: float = 0.999,
    accumulate: int = 1,
) -> tuple[Callable[[Key], State], Callable[..., tuple[State, dict[str, Array]]]]:
    """`play` with one player, whose parts of the `State` are its own trees, without a name.

    Args:
        init: key -> params.
        loss: see `BatchLoss`; it does not depend on the step.
        transform: an optax optimiser.
        ema, accumulate: see `Rule`.

    Raises:
        UserError: a decay outside [0, 1).
    """
    if not 0 <= ema < 1:
        raise UserError(f"config.optimizer.ema={ema} must lie in [0, 1)")
    alone = lambda params, key, batch, step: loss(params[MODEL], key, batch)
    player = Player(alone, Rule(transform, ema, accumulate))
    start, update = play(lambda key: {MODEL: init(key)}, {MODEL: player})

    def bare(state: State) -> State:
        return State(state.step, *(part[MODEL] for part in state[1:]))

    def step(state: State, key: Key, batch: Batch):
        named = State(state.step, *({MODEL: part} for part in state[1:]))
        moved, metrics = update(named, key, batch)
        return bare(moved), metrics

    return (lambda key: bare(start(key))), step


def restarted(transform: optax.GradientTransformation, params: PyTree, memory: PyTree) -> PyTree:
    """The memory of an optimiser with its moments at zero and its schedule where it is."""
    schedule = lambda part: isinstance(part, optax.ScaleByScheduleState)
    keep = lambda old, new: old if schedule(old) else new
    return jax.tree.map(keep, memory, transform.init(params), is_leaf=schedule)


def interleaved(batch: PyTree, parts: int) -> PyTree:
    """[B, ...] -> [parts, B / parts, ...]: part i holds every `parts`-th row from row i.

    A batch axis that is split over devices stays where it is.
    """
    return jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, parts, *a.shape[1:]), 1, 0), batch)


def _mover(name: str, player: Player) -> Callable:
    """(state, (key, batch)) -> (state, {name: []}): one move of a player."""
    rule = player.rule

    def move(state: State, inputs: tuple[Key, Batch]):
        def mean_loss(own, key, batch):
            values, parts = player.loss({**state.params, name: own}, key, batch, state.step)
            return jnp.mean(values), jax.tree.map(jnp.mean, parts)

        before = state.params[name], state.ema[name], state.opt_state[name]
        params, average, memory = before
        (value, parts), grads = _gradients(mean_loss, rule.accumulate)(params, *inputs)
        updates, memory = rule.transform.update(grads, memory, params)
        params = optax.apply_updates(params, updates)
        decay = jnp.minimum(rule.ema, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
        norm = optax.global_norm(grads)
        metrics = {"loss": value, "grad_norm": norm, **parts}
        after = params, average, memory
        if rule.skip:
            small = norm <= rule.skip  # false for nan
            after = jax.tree.map(lambda new, old: jnp.where(small, new, old), after, before)
            metrics["skipped"] = 1.0 - small
        of = lambda whole, own: {**whole, name: own}
        moved = (of(*pair) for pair in zip(state[1:], after, strict=True))
        return State(state.step, *moved), metrics

    return move


def _gradients(mean_loss: Callable, accumulate: int) -> Callable:
    """(params, key, batch) -> ((value, parts), gradients), of parts of the batch in turn."""
    value_and_grad = jax.value_and_grad(mean_loss, has_aux=True)
    if accumulate == 1:
        return value_and_grad

    def gradients(params, key, batch):
        def body(total, inputs):
            part, k = inputs
            return jax.tree.map(jnp.add, total, value_and_grad(params, k, part)), None

        parts, keys = interleaved(batch, accumulate), jax.random.split(key, accumulate)
        shapes = jax.eval_shape(
            value_and_grad, params, keys[0], jax.tree.map(lambda a: a[0], parts)
        )
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(body, zero, (parts, keys))
        return jax.tree.map(lambda a: a / accumulate, total)

    return gradients
