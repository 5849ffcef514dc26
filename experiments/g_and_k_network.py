"""The amortised posterior of the g-and-k law: simulation, two networks, reverse runs.

Coordinates. theta = 10 Phi(y), so the prior of y is N(0, I): no edges, and what the noising
leaves. Values reach 1e13, so the data are seen through logarithms. Of the sorted values x_(i) and
x_(n+1-i), at distances d- and d+ from the median, the network sees

    log((d+ + d-) / r)    which is k log(1 + z_i^2) and little else
    log(d+ / d-)          on which g acts, and neither A, B nor k

with z_i the normal quantile of x_(i) and r the interquartile range; and the median and log r.
That is the sorted sample, in coordinates where the parameters act almost linearly. Each is brought
to mean zero and variance one over the prior.

A posterior is narrower than the prior by up to a thousand, and differently in each direction. So
a first network fits a Gaussian N(m, (P^T P)^-1) to it by maximum likelihood, m and P functions of
the data, and the diffusion lives in z = P (y - m), for which N(0, I) is a first guess. The score
network's output is -(std z + alpha v), alpha and std those of the kernel: with v = 0 the reverse
run draws that Gaussian, and what v learns is the difference. The paper's network has no such
stage. The Gaussian is reported beside the diffusion.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import g_and_k_reference as exact
from experiments.g_and_k_reference import HIGHEST, TRUTH
from gmjax.losses import scores, times
from gmjax.methods.combinators import BatchLoss, from_loss, optimizer
from gmjax.networks import field
from gmjax.networks.layers import Dense, normalise
from gmjax.processes import gaussian, schedules
from gmjax.samplers import driver, grids, markov
from gmjax.types import Array, Key, Predict, PyTree

SCHEDULE = schedules.linear(0.001, 8.0)
T_MIN = 1e-3


class Training(NamedTuple):
    """How much to train, and on what."""

    draws: int  # n, of one data set
    guide_updates: int
    updates: int  # of the score network
    batch: int  # new pairs in every update
    width: int  # of the guide; the score network's is half of it
    learning_rate: float
    ema: float


# -- simulation ---------------------------------------------------------------------------------


def sorted_normals(key: Key, batch: int, n: int) -> Array:
    """n standard normal numbers in increasing order, without sorting: [batch, n].

    Sums of exponential numbers over their total are sorted uniform numbers.
    """
    upto = jnp.cumsum(jax.random.exponential(key, (batch, n + 1)), -1)
    # Rounding reaches one for one data set in 1e5; the next number below is 6e-8 away.
    uniform = jnp.clip(upto[:, :-1] / upto[:, -1:], 1e-9, 1 - 1.2e-7)
    return jax.scipy.special.ndtri(uniform)


@partial(jax.jit, static_argnums=(1, 2))
def simulate(key: Key, batch: int, n: int) -> tuple[Array, Array]:
    """y [batch, 4] from the prior and sorted data x [batch, n] given it."""
    key_y, key_z = jax.random.split(key)
    y = jax.random.normal(key_y, (batch, 4))
    return y, exact.quantile(sorted_normals(key_z, batch, n), exact.to_theta(y))


@partial(jax.jit, static_argnums=(1, 2))
def observed(key: Key, batch: int, n: int) -> Array:
    """Sorted data [batch, n] of the paper's parameters."""
    return exact.quantile(sorted_normals(key, batch, n), jnp.asarray([TRUTH]))


def location_scale(x: Array) -> tuple[Array, Array]:
    """Median and interquartile range of sorted x [B, n]: [B], [B]."""
    n = x.shape[-1]
    middle = 0.5 * (x[:, (n - 1) // 2] + x[:, n // 2])
    return middle, jnp.maximum(x[:, (3 * n) // 4] - x[:, n // 4], 1e-5)


def features(x: Array) -> Array:
    """What a network sees of sorted x [B, n]: [B, 2 (n // 2) + 2], before standardisation."""
    middle, spread = (a[:, None] for a in location_scale(x))
    half = x.shape[-1] // 2
    least = 1e-6 * spread
    above = jnp.maximum(x[:, : -half - 1 : -1] - middle, least)
    below = jnp.maximum(middle - x[:, :half], least)
    pairs = jnp.log((above + below) / spread), jnp.log(above / below)
    return jnp.concatenate([*pairs, jnp.arcsinh(middle), jnp.log(spread)], -1)


def standardised(key: Key, n: int, pairs: int = 4096) -> Callable[[Array], Array]:
    """`features` with mean zero and variance one over the prior."""

    def moments(key):
        seen = features(simulate(key, pairs, n)[1])
        # The innermost two are as far from the median as each other, up to rounding.
        return jnp.mean(seen, 0), jnp.maximum(jnp.std(seen, 0), 0.01)

    mean, std = jax.jit(moments)(key)
    return lambda x: (features(x) - mean) / std


# -- the Gaussian stage -------------------------------------------------------------------------


class Chart(NamedTuple):
    """The affine map of each data set, z = P (y - m)."""

    mean: Array  # m [B, 4]
    root: Array  # P [B, 4, 4], lower triangular

    def to(self, y: Array) -> Array:
        """y [B, ..., 4] -> z."""
        return jnp.einsum("bij,b...j->b...i", self.root, y - self._mean(y))

    def back(self, z: Array) -> Array:
        """z [B, ..., 4] -> y."""
        return self._mean(z) + jnp.einsum("bij,b...j->b...i", jnp.linalg.inv(self.root), z)

    def _mean(self, like):
        return self.mean.reshape(len(self.mean), *(1,) * (like.ndim - 2), 4)


class Guide(nn.Module):
    """A residual network: context [B, C] -> [B, 14], four means and a triangle."""

    width: int
    blocks: int = 3

    @nn.compact
    def __call__(self, context: Array) -> Array:
        h = Dense(self.width)(context)
        for _ in range(self.blocks):
            h = h + Dense(self.width)(nn.silu(Dense(self.width)(normalise(h))))
        return Dense(14, kernel_init=nn.initializers.zeros)(normalise(h))


def chart(out: Array, x: Array) -> Chart:
    """The chart of a guide's output [B, 14] for data x [B, n].

    The median tells A to within a share of the interquartile range, which the guide refines.
    """
    middle, spread = location_scale(x)
    first = exact.to_y(jnp.clip(middle, 0.02 * HIGHEST, 0.98 * HIGHEST))
    density = HIGHEST * jax.scipy.stats.norm.pdf(first)  # d A / d y
    unit = jnp.ones((len(x), 4)).at[:, 0].set(jnp.minimum(1, 0.1 * spread / density))
    mean = jnp.zeros((len(x), 4)).at[:, 0].set(first) + unit * out[:, :4]
    rows, columns = np.tril_indices(4, -1)
    # Deviations between e^-8 and e^8 of the unit: an early outlier must not overflow.
    root = (
        jax.vmap(jnp.diag)(jnp.exp(8 * jnp.tanh(out[:, 4:8] / 8)))
        .at[:, rows, columns]
        .set(out[:, 8:])
    )
    return Chart(mean, root / unit[:, None])


def gaussian_loss(z: Array, root: Array) -> Array:
    """-log N(y; m, (P^T P)^-1) up to a constant, for z = P (y - m): [B]."""
    logs = jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1))
    return 0.5 * jnp.sum(z**2, -1) - jnp.sum(logs, -1)


# -- training -----------------------------------------------------------------------------------


def train(
    init: Callable[[Key], PyTree],
    loss: BatchLoss,
    batch: Callable[[Key], dict[str, Array]],
    config: Training,
    updates: int,
    key: Key,
) -> tuple[PyTree, Array]:
    """Averaged parameters after `updates` on fresh batches in one scan, and the losses."""
    rule = {
        "name": "adamw",
        "learning_rate": config.learning_rate,
        "warmup": updates // 50,
        "decay": "cosine",
        "weight_decay": 0.0,
        "b2": 0.99,
        "clip": 1.0,
    }
    start, update = from_loss(init, loss, optimizer(rule, updates), config.ema)
    key_init, key_run = jax.random.split(key)

    def body(state, i):
        key_batch, key_loss = jax.random.split(jax.random.fold_in(key_run, i))
        state, metrics = update(state, key_loss, batch(key_batch))
        return state, metrics["loss"]

    state = jax.jit(start)(key_init)
    state, losses = jax.jit(lambda s: jax.lax.scan(body, s, jnp.arange(updates)))(state)
    return state.ema, losses


class Trained(NamedTuple):
    """The two networks at work."""

    chart: Callable[[Array], Chart]  # sorted data x [B, n] -> `Chart`
    predict: Predict  # of z; cond["context"] [B, C]
    context: Callable[[Array], Array]  # x [B, n] -> [B, C]
    losses: Mapping[str, Array]


def output(v: Array, z: Array, t: Array) -> Array:
    """The score times std: -(std z + alpha v), of N(0, I) where v is zero; [B, 4], [B, 4], [B]."""
    clock = SCHEDULE.clock(t)[:, None]
    return -(jnp.sqrt(-jnp.expm1(-clock)) * z + jnp.exp(-0.5 * clock) * v)


def fit(config: Training, key: Key) -> Trained:
    """Both stages of training, one after the other."""
    key_stats, key_guide, key_score = jax.random.split(key, 3)
    seen = standardised(key_stats, config.draws)
    pairs = lambda key: simulate(key, config.batch, config.draws)
    guide = Guide(config.width)
    guided = lambda params, x: jnp.asarray(guide.apply(params, seen(x)))

    def guide_loss(params, key, batch):
        at = chart(guided(params, batch["x"]), batch["x"])
        return gaussian_loss(at.to(batch["y"]), at.root), {}

    def raw(key):
        y, x = pairs(key)
        return {"y": y, "x": x}

    size = 2 * (config.draws // 2) + 2
    first = lambda key: guide.init(key, jnp.zeros((1, size)))
    own, guide_losses = train(first, guide_loss, raw, config, config.guide_updates, key_guide)
    at = lambda x: chart(guided(own, x), x)

    process = gaussian.vp(SCHEDULE, (4,))
    network = field.build(
        {"width": config.width // 2, "blocks": 3, "expand": 2, "frequencies": 16}, 4
    )
    denoise = scores.denoising(process, times.uniform_in_t(T_MIN))

    def context(x):
        return jnp.concatenate([seen(x), guided(own, x)], -1)

    def predictor(params) -> Predict:
        def predict(z, t, cond):
            return output(network.apply(params, z, t, cond), z, t)

        return predict

    def score_loss(params, key, batch):
        return denoise(predictor(params), key, batch["z"], {"context": batch["context"]})

    def charted(key):
        y, x = pairs(key)
        return {"z": at(x).to(y), "context": context(x)}

    def init(key):
        cond = {"context": jnp.zeros((1, size + 14))}
        return network.init(key, jnp.zeros((1, 4)), jnp.ones(1), cond)

    params, losses = train(init, score_loss, charted, config, config.updates, key_score)
    return Trained(at, predictor(params), context, {"guide": guide_losses, "score": losses})


# -- sampling -----------------------------------------------------------------------------------


def sampler(
    trained: Trained, stepper: str, steps: int, method: str = "diffusion"
) -> Callable[[Key, Array, int], Array]:
    """(key, x [B, n], m) -> y [B, m, 4], m posterior draws for each data set.

    Args:
        trained: the networks.
        stepper: a name in `markov.STEPPERS`.
        steps: of the reverse run.
        method: "diffusion", or "gaussian" for the first stage alone.
    """
    step = markov.STEPPERS[stepper](gaussian.vp(SCHEDULE, (4,)))
    grid = grids.uniform(steps, T_MIN)

    def draw(key, x, m):
        key_base, key_run = jax.random.split(key)
        z = jax.random.normal(key_base, (len(x) * m, 4))
        if method == "diffusion":
            cond = {"context": jnp.repeat(trained.context(x), m, 0)}
            z = driver.reverse(step, trained.predict, key_run, z, grid, cond).x
        return trained.chart(x).back(z.reshape(len(x), m, 4))

    return jax.jit(draw, static_argnames="m")
