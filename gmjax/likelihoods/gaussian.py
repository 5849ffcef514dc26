"""Variational bounds of a denoiser on a Gaussian path, in three parts.

    -log p(x0) <= KL(q(x_1 | x0) || N(0, base^2))                              prior
                + E -log p(x0 | x_{t_min})                                     reconstruction
                + int_{t_min}^1 -SNR'(t) / 2 E |x0 - D(x_t, t)|^2 dt           diffusion

and of T discrete steps the last is sum_{i >= 2} KL(q(x_{(i-1)/T} | x_{i/T}, x0) || p), with
p(x0 | x_{1/T}) the reconstruction. For values on a grid of levels x0 the reconstruction of the
continuous bound is the posterior under equal prior weights, p(x0 = v | x) = softmax_v of
-(x - alpha v)^2 / (2 sigma^2), each entry by itself (Kingma et al. 2021, equation 21); that of
the discrete one is the Gaussian's mass in the bin (Ho et al. 2020, equation 13).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gmjax.losses import gaussian_steps as each
from gmjax.losses.gaussian import denoising, level_log_probs, noised, prior
from gmjax.losses.times import TimeSampler
from gmjax.paths import heads
from gmjax.paths.gaussian import GaussianPath
from gmjax.types import Array, Cond, Key, Predict

Bound = Callable[[Any, Key, Array, Cond], dict[str, Array]]


def continuous(
    path: GaussianPath,
    head: str,
    times: TimeSampler,
    t_min: float,
    levels: Array,
    num_times: int = 16,
    data_std: float = 1.0,
    base_std: float = 1.0,
) -> Bound:
    """The negative bound in continuous time of data on a grid of levels.

    Args:
        path: the noising; head: what the network predicts.
        times: on [t_min, 1], with weights that make an integral.
        t_min: where the reverse process stops.
        levels: [V], the values an entry can take.
        num_times: noised draws an example.
        data_std: for the head "edm"; base_std: of the reference law.

    Returns:
        (predict, key, x0 [B, *S], cond) -> {"nats", "prior", "reconstruction", "diffusion"}:
        [B], nats an entry; the first is the sum of the others.
    """
    integral = denoising(path, head, times, "likelihood", data_std)

    def bound(predict: Predict, key: Key, x0: Array, cond: Cond):
        key_times, key_last = jax.random.split(key)
        keys = jax.random.split(key_times, num_times)
        draw = lambda kj: integral(predict, kj[0], x0, cond, (kj[1], num_times))[0]
        draws = jax.lax.map(draw, (keys, jnp.arange(num_times)))
        t = jnp.full(len(x0), t_min, x0.dtype)
        x = noised(path, x0, jax.random.normal(key_last, x0.shape, x0.dtype), t)
        return _sum(
            prior=_mean(prior(path, x0, base_std)),
            reconstruction=_mean(-level_log_probs(path, x0, x, t, levels)),
            diffusion=jnp.mean(draws, 0),
        )

    return bound


def discrete(
    path: GaussianPath,
    head: str,
    steps: int,
    decode: Callable[[Array, each.Step], Array],
    variance: str = "small",
    num_times: int = 16,
    data_std: float = 1.0,
    base_std: float = 1.0,
) -> Bound:
    """The negative bound of T ancestral steps.

    Args:
        path: with the discrete times t = i / T.
        head: what the network predicts; with variance "learned" it also gives the fraction.
        steps: T.
        decode: (x0, Step) -> [B, *S] nats, as `gaussian_steps.discretised`.
        variance: of the reverse steps, in `gaussian_steps.VARIANCES`.
        num_times: of the T - 1 inner steps, spread evenly with a random shift, an example; T - 1
            or more: each of them.
        data_std: for the head "edm"; base_std: of the reference law.

    Returns:
        As `continuous`.
    """
    inner = steps - 1

    def read(predict, x, t, cond):
        out = predict(x, t, cond)
        out, fraction = out if variance == "learned" else (out, None)
        return heads.denoised(head, path, out, x, t, data_std)[0], fraction

    def bound(predict: Any, key: Key, x0: Array, cond: Cond):
        key_shift, key_noise, key_last = jax.random.split(key, 3)
        number = min(num_times, inner)
        shift = jax.random.uniform(key_shift, (len(x0),)) * (number < inner)

        def term(j):
            eps = jax.random.normal(jax.random.fold_in(key_noise, j), x0.shape, x0.dtype)
            i = 2 + jnp.floor((j + shift) * inner / max(number, 1)).astype(jnp.int32)
            i = jnp.minimum(i, steps)
            t, s = i / steps, (i - 1) / steps
            x = noised(path, x0, eps, t)
            guess, fraction = read(predict, x, t, cond)
            return _mean(each.step_kl(path, variance, x0, guess, fraction, x, t, s))

        draws = jax.lax.map(term, jnp.arange(number)) if number else jnp.zeros((1, len(x0)))
        t = jnp.full(len(x0), 1 / steps, x0.dtype)
        x = noised(path, x0, jax.random.normal(key_last, x0.shape, x0.dtype), t)
        guess, fraction = read(predict, x, t, cond)
        last = each.last_step(path, variance, guess, fraction, steps)
        return _sum(
            prior=_mean(prior(path, x0, base_std)),
            reconstruction=_mean(decode(x0, last)),
            diffusion=inner * jnp.mean(draws, 0),
        )

    return bound


def _mean(x: Array) -> Array:
    """The mean over all axes but the first."""
    return jnp.mean(x, tuple(range(1, x.ndim)))


def _sum(**parts: Array) -> dict[str, Array]:
    return {"nats": sum(parts.values()), **parts}  # type: ignore[dict-item]
