"""Losses of a denoiser on a Gaussian path x_t = alpha x0 + sigma eps.

A network predicts a head out = p x0 + q eps (`paths.heads`). The error of any head is that of x0
times c / sigma, so a loss is a weight W(t) on |x0 - D(x_t)|^2:

    simple        c^2 / sigma^2       the head's own mean square; of eps that of Ho et al. (2020)
    eps           SNR                 the error of eps, whatever the head
    likelihood    -SNR' / 2           the variational bound (Kingma et al. 2021, equation 15)
    min_snr       min(SNR, 5)         Hang et al. (2023)
    sigmoid       -SNR' / 2 sigmoid(2 - log SNR)            Kingma and Gao (2023), bias 2
    edm           SNR + 1 / s^2       Karras et al. (2022), of x / alpha

With `likelihood` and the time sampler's weight 1 / p(t), the mean over times is the bound's
diffusion part,

    KL(q(x_{s} | x0) path || model path) = int -SNR'(t) / 2 E |x0 - D(x_t, t)|^2 dt,

from d/dt of the Gaussian KL of one step: |x0 - D|^2 (SNR(t - h) - SNR(t)) / 2.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmjax.losses.times import TimeSampler, uniform_in_t
from gmjax.paths import heads
from gmjax.paths.gaussian import GaussianPath, slopes
from gmjax.paths.heads import spread
from gmjax.types import Array, Cond, Key, Loss, Predict, PyTree, lookup


class At(NamedTuple):
    """What a weight may depend on: numbers at times t, [B] each."""

    own: Array  # (c / sigma)^2 of the head
    snr: Array
    fall: Array  # -d SNR / dt > 0
    alpha: Array
    sigma: Array
    data_std: float


WEIGHTS: dict[str, Callable[[At], Array]] = {
    "simple": lambda at: at.own,
    "eps": lambda at: at.snr,
    "likelihood": lambda at: 0.5 * at.fall,
    "min_snr": lambda at: jnp.minimum(at.snr, 5.0),
    "sigmoid": lambda at: 0.5 * at.fall * jax.nn.sigmoid(2 - jnp.log(at.snr)),
    "edm": lambda at: at.snr + 1 / at.data_std**2,
}


def denoising(
    path: GaussianPath,
    head: str,
    times: TimeSampler,
    weighting: str = "simple",
    data_std: float = 1.0,
) -> Loss:
    """The weighted error of a head, at one noised draw an example.

    Args:
        path: the noising.
        head: what the network predicts, in `paths.heads.HEADS`.
        times: the time sampler. With "likelihood" and "sigmoid", which are integrals over t, its
            weights count; with the others its density is part of the weighting.
        weighting: in `WEIGHTS`.
        data_std: standard deviation of an entry of the data.

    Returns:
        A loss (predict, key, x0 [B, *S], cond, part=None) -> ([B], {}): the mean over entries.

    Raises:
        UserError: an unknown head or weighting.
    """
    weight_of = lookup(WEIGHTS, weighting, "config.loss.weighting")
    lookup(heads.HEADS, head, "config.loss.head")
    integral = weighting in ("likelihood", "sigmoid")

    def loss(predict: Predict, key: Key, x0: Array, cond: Cond, part=None):
        key_t, key_eps = jax.random.split(key)
        t, weight = times(key_t, len(x0), part)
        eps = jax.random.normal(key_eps, x0.shape, x0.dtype)
        x = noised(path, x0, eps, t)
        out = predict(x, t, cond)
        gap = out - heads.target(head, path, x0, eps, t, data_std)
        at = numbers(path, head, t, data_std)
        # Where alpha = 0 the noise is x / sigma: eps has no error, and any weight will do.
        own = jnp.where(at.own > 0, at.own, 1.0)
        scale = jnp.where(at.own > 0, weight_of(at) / own, 1.0) * (weight if integral else 1.0)
        return scale * jnp.mean(gap**2, tuple(range(1, x0.ndim))), {}

    return loss


def learned_path(
    path_of: Callable[[PyTree], GaussianPath],
    head: str,
    t_min: float,
    num_values: int,
    spread_of: Callable[[Key, int], Array],
    data_std: float = 1.0,
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """The bound with a schedule that learns: its ends by the bound, its shape by the variance.

    The mean over t of the diffusion part does not depend on the shape, and its gradient there is
    noise. The shape follows the gradient of E L^2 / 2 instead, L grad L, with one more
    evaluation in which the network and the ends are held. The gradient alone means anything:
    the value is the bound.

    Args:
        path_of: parameters {"ends", "shape"} -> path.
        head: what the network predicts.
        t_min: where the reverse process stops.
        num_values: V levels on [-1, 1], for the reconstruction.
        spread_of: in `times.SPREADS`.
        data_std: for the head "edm".

    Returns:
        (predict, still, params, key, x0 [B, *S], cond) -> ([B] nats an entry, {"bound"}), where
        `still` is predict with its parameters held.
    """
    times = uniform_in_t(t_min, spread_of)
    levels = jnp.linspace(-1, 1, num_values)

    def diffusion(predict, params, key, x0, cond):
        return denoising(path_of(params), head, times, "likelihood", data_std)(
            predict, key, x0, cond
        )[0]

    def loss(predict: Predict, still: Predict, params: PyTree, key: Key, x0: Array, cond: Cond):
        key_times, key_last = jax.random.split(key)
        held = jax.lax.stop_gradient
        value = diffusion(predict, {**params, "shape": held(params["shape"])}, key_times, x0, cond)
        again = diffusion(still, {**params, "ends": held(params["ends"])}, key_times, x0, cond)
        path = path_of({**params, "shape": held(params["shape"])})
        t = jnp.full(len(x0), t_min, x0.dtype)
        x = noised(path, x0, jax.random.normal(key_last, x0.shape, x0.dtype), t)
        ends = prior(path, x0) - level_log_probs(path, x0, x, t, levels)
        bound = value + jnp.mean(ends, tuple(range(1, x0.ndim)))
        shape = 0.5 * (again**2 - held(again) ** 2)  # no value, a gradient
        return bound + shape, {"bound": held(bound)}

    return loss


def noised(path: GaussianPath, x0: Array, eps: Array, t: Array) -> Array:
    """alpha x0 + sigma eps: [B, *S] at times t [B]."""
    return spread(path.alpha(t), x0) * x0 + spread(path.sigma(t), x0) * eps


def numbers(path: GaussianPath, head: str, t: Array, data_std: float) -> At:
    """`At` times t [B]."""
    a, s, da, ds = slopes(path, t)
    p, q = heads.coefficients(head, path, t, data_std)
    return At(
        own=(p - a * q / s) ** 2,
        snr=(a / s) ** 2,
        fall=2 * a * (a * ds - da * s) / s**3,
        alpha=a,
        sigma=s,
        data_std=data_std,
    )


def prior(path: GaussianPath, x0: Array, base_std: float = 1.0) -> Array:
    """KL(N(alpha_1 x0, sigma_1^2) || N(0, base_std^2)) of each entry, nats: [B, *S]."""
    one = jnp.ones((), x0.dtype)
    ratio = (path.sigma(one) / base_std) ** 2
    return 0.5 * (ratio - 1 - jnp.log(ratio) + (path.alpha(one) * x0 / base_std) ** 2)


def level_log_probs(path: GaussianPath, x0: Array, x: Array, t: Array, levels: Array) -> Array:
    """log of q(x | x0) / sum_v q(x | v) of each entry: [B, *S]."""
    a, s = spread(path.alpha(t), x), spread(path.sigma(t), x)
    each = -0.5 * ((x[..., None] - a[..., None] * levels) / s[..., None]) ** 2
    return -0.5 * ((x - a * x0) / s) ** 2 - jax.nn.logsumexp(each, -1)
