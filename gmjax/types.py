"""The records that every room shares: NamedTuples of pure functions, and nothing else.

Mathematics (a generator, a kernel, a rate) is written for ONE state ``x: [*S]`` and one
time ``t: []`` and vmapped; networks, losses and steppers are batched, ``x: [B, *S]`` and
``t: [B]``. ``Predict`` is the boundary between the two worlds: a network closed over its
parameters, which losses and samplers receive as a plain function.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array
PyTree = Any
Cond = Mapping[str, Array] | None
Predict = Callable[[Array, Array, Cond], Array]
# (predict, key, x0 [B, *S], cond, part=None) -> values [B], {name: [B]}; part as of `losses.times`
Loss = Callable[..., tuple[Array, dict[str, Array]]]


class UserError(ValueError):
    """A mistake the user can mend: one line with the key, the value and what is valid."""


def lookup(table: Mapping[str, Any], name: str, key: str) -> Any:
    """`table[name]`, or a `UserError` that names `key` and lists the valid names.

    Args:
        table: a room's table of named entries.
        name: the entry asked for.
        key: the configuration key it came from, for the message.

    Raises:
        UserError: `name` is not in the table.
    """
    if name not in table:
        raise UserError(f"{key}={name!r} is unknown; valid: {', '.join(sorted(table))}")
    return table[name]


class Distribution(NamedTuple):
    """A law one can draw from and evaluate."""

    sample: Callable[[Key], PyTree]  # key -> x [*S]
    log_prob: Callable[[PyTree], Array]  # x [*S] -> [] nats


class Space(NamedTuple):
    """A state space with a geometry: states are arrays in coordinates that embed it.

    Tangent vectors are arrays of the same shape. Everything but `check` is for one state.
    """

    shape: tuple[int, ...]  # [*S], one state
    dim: int  # intrinsic dimension
    check: Callable[[Any], str]  # x [N, *S] on the host -> "" or what is wrong and what is valid
    project: Callable[[Array], Array]  # x near the space -> x in it
    tangent: Callable[[Array, Array], Array]  # (x, v) -> v's part along the space
    exp: Callable[[Array, Array], Array]  # (x, v) -> y, the geodesic from x along v at time one
    log: Callable[[Array, Array], Array]  # (x, y) -> v, the shortest with exp(x, v) = y
    inner: Callable[[Array, Array, Array], Array]  # (x, u, v) -> [], the metric of tangents
    frame: Callable[[Array], Array]  # x -> e [K, *S], sum_k e_k e_k^T = the inverse metric
    # (key, x) -> a standard normal tangent vector; (key, x, draw) one of the law of `draw`, of
    # mean zero and variance one, such as jax.random.rademacher
    noise: Callable[..., Array]
    uniform: Distribution | None  # the normalised volume, where it is finite
    embed: Callable[[Array], Array]  # x -> [F], smooth features of order one for a network


class Generator(NamedTuple):
    """The generator L_t of a Markov process, for one state and one time."""

    apply: Callable[..., Array]  # (f, x, t) -> [], (L_t f)(x)
    adjoint: Callable[..., Array] | None  # (f, x, t) -> [], (L*_t f)(x) in the reference measure
    step: Callable[..., PyTree]  # (key, x, t, dt) -> x', a weak first-order step
    # log_beta (x, t) -> [] gives the generator of the time reversal under the density beta
    reverse: Callable[..., "Generator"] | None = None


class Process(NamedTuple):
    """A noising process on [0, 1]: t = 0 is data, t = 1 the reference law.

    Its score is generalised: a tangent vector grad log p_t(x) for diffusions, the ratios
    p_t(y) / p_t(x) for jumps, a tree of such on a product of spaces.
    """

    generator: Generator
    sample: Callable[..., PyTree]  # (key, x0, t) -> x_t, the forward kernel q_{t|0}
    log_prob: Callable[..., Array] | None  # (x_t, x0, t) -> [] nats, its density
    base: Distribution  # the reference law
    target: Callable[..., PyTree]  # (x0, x_t, t) -> conditional generalised score
    reverse: Callable[..., Generator]  # score (x, t) -> time-reversed generator
    space: PyTree = None  # `Space`, or a tree of them
    # (x, t, target, score) -> [], Phi(q / beta) in terms of the scores of q and of beta
    phi: Callable[..., Array] | None = None
    # the same, weighted so that it is of order one at every t and learns well
    simple: Callable[..., Array] | None = None
    read: Callable[..., PyTree] | None = None  # (network output of order one, x, t) -> score
    velocity: Callable[..., Callable] | None = None  # score -> (x, t) -> probability-flow velocity


class Lift(NamedTuple):
    """Data as a part of a process's state: what is drawn beside them, and what it costs."""

    enter: Callable[[Array], Array]  # x [*S] -> a state
    leave: Callable[[Array], Array]  # a state -> x
    # t [] -> [] nats, the entropy of what `leave` drops given what it keeps, by the kernel
    entropy: Callable[[Array], Array]


class Stepper(NamedTuple):
    """One reverse step; a single scan drives every stepper."""

    init: Callable[[Array], PyTree]  # x [B, *S] -> carry
    step: Callable[..., tuple[Array, PyTree]]  # (predict, key, x, t [B], t_next [B], carry, cond)
    nfe: Callable[..., Any]  # times [N + 1] on the host -> network evaluations of the whole run


class DataSpec(NamedTuple):
    """What a method must know of the data."""

    shape: PyTree  # [*S], one example; of a table {"numeric": (d,), "classes": (m,)}
    num_values: int  # discrete data take values 0 .. num_values - 1; 0: continuous, or counts
    # "image" [H, W, C], "sequence" [L] or "vector" [D]; of continuous data the space they lie in
    # (`data.sources.SPACES`); "table" of mixed columns, num_values being that of all its classes
    kind: str = "vector"
    ordinal: bool = False  # do neighbouring values mean nearly the same?
    num_classes: int = 0  # 0: no labels
    names: PyTree = ()  # of the coordinates, where they have any; of a table a dict like x


class Source(NamedTuple):
    """Random access to a split of a data set."""

    size: int
    # indices [n] -> {"x": [n, *S] int32 or float32, or a dict of such, "label": [n], ...}
    take: Callable[..., dict[str, Any]]


class Dataset(NamedTuple):
    """A data set: what it looks like, and its two splits."""

    spec: DataSpec
    train: Source
    test: Source
    notes: tuple[str, ...] = ()  # what a person should know of it, a line each


class Method(NamedTuple):
    """All that training, evaluation and sampling need to know of a model."""

    init: Callable[[Key], PyTree]  # key -> state
    # (state, key, batch) -> (state, {name: []})
    update: Callable[..., tuple[PyTree, dict[str, Array]]]
    evaluate: Callable[..., dict[str, Array]]  # (state, key, batch) -> {name: [B]}, unreduced
    sample: Callable[..., Any]  # (state, key, n, cond) -> Samples
    check: Callable[[Any], str] | None = None  # x [N, *S] on the host -> "" or what is wrong
    # (state, x [B, *S], t [B]) -> [B, *S], the velocity of the probability flow
    field: Callable[..., Array] | None = None
    # (state, key, batch) -> {"log_snr": [M], "loss": [M]}, the loss by noise level
    profile: Callable[..., dict[str, Array]] | None = None
    # (state, key, batch) -> {name: array}, what it makes of examples, drawn by `metrics.codes`
    views: Callable[..., dict[str, Array]] | None = None


class Samples(NamedTuple):
    """What a sampler returns."""

    x: Array  # [n, *S]
    nfe: Array  # [] int32, network evaluations
    times: Array | None = None  # [N + 1], the time grid
    trajectory: Array | None = None  # [N + 1, m, *S], the first m examples, when asked for
