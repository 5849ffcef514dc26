"""Stochastic interpolants X_t = alpha_t X0 + beta_t X1 + gamma_t Z on R^d.

X0 is data (t = 0), X1 a source at t = 1, noise or another set of data, and Z ~ N(0, I) apart from
both. With eta = E[Z | X_t = x] the marginals move along

    v(x, t) = E[alpha' X0 + beta' X1 + gamma' Z | X_t = x],        grad log p_t(x) = -eta / gamma,

the second by Stein's identity for the Gaussian part. So for any c >= 0 the marginals, from
t down to s, are also those of

    dX = (v + c eta) dt + sqrt(2 c gamma) dB,        dt < 0,

whose coefficients are finite where gamma vanishes: it needs eta and not the score. Where X1 is
Gaussian noise independent of X0, it is itself the Z of the formulas, with beta for gamma.

gamma = sqrt(a t (1 - t)) has an infinite slope at both ends. The head `parts` learns the means of
alpha' X0 + beta' X1 and of Z, both of order one, side by side and v from them; times stay in
[t_min, t_max].

    linear           1 - t                  t                   0
    trigonometric    cos(pi t / 2)          sin(pi t / 2)       0
    vp_*, log_snr_*  the Gaussian paths of `paths.gaussian`     0
    bridge           1 - t                  t                   sqrt(a t (1 - t))
    smooth_bridge    1 - t                  t                   a t (1 - t)
    regular_bridge   1 - t                  t                   2 R sqrt((d + t)(1 + d - t))
    encode_decode    cos^2(pi t), t < 1/2   cos^2, t >= 1/2     sin^2(pi t)

Source: Albergo and Vanden-Eijnden (2023); Albergo, Boffi and Vanden-Eijnden (2023); Liu et al.
(2023); Benton, Deligiannidis and Doucet (2023) for regular_bridge.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gmjax.paths import gaussian, heads
from gmjax.paths.conditional import Path
from gmjax.paths.gaussian import GaussianPath
from gmjax.spaces.euclidean import euclidean
from gmjax.types import Array, Distribution, Space, UserError, lookup

_TINY = 1e-12


class Interpolant(NamedTuple):
    """alpha, beta and gamma as functions of t in [0, 1]; no gamma: None."""

    alpha: Callable[[Array], Array]
    beta: Callable[[Array], Array]
    gamma: Callable[[Array], Array] | None = None


def coefficients(interpolant: Interpolant, t: Array) -> tuple[Array, ...]:
    """(alpha, beta, gamma, alpha', beta', gamma') at t: [...] each."""
    alpha, beta, gamma = interpolant
    functions = (alpha, beta, gamma or jnp.zeros_like)
    pairs = [jax.jvp(f, (t,), (jnp.ones_like(t),)) for f in functions]
    return tuple(value for value, _ in pairs) + tuple(slope for _, slope in pairs)


def bridge(strength: float = 1.0) -> Interpolant:
    """Straight lines and the noise of a Brownian bridge, gamma^2 = a t (1 - t).

    Args:
        strength: a.
    """
    _positive("strength", strength)
    root = lambda t: jnp.sqrt(jnp.maximum(strength * t * (1 - t), _TINY))
    return Interpolant(lambda t: 1 - t, lambda t: t, root)


def smooth_bridge(strength: float = 1.0) -> Interpolant:
    """Straight lines and gamma = a t (1 - t), whose slope is finite.

    Args:
        strength: a.
    """
    _positive("strength", strength)
    return Interpolant(lambda t: 1 - t, lambda t: t, lambda t: strength * t * (1 - t))


def regular_bridge(radius: float = 1.0, delta: float = 0.01) -> Interpolant:
    """gamma = 2 R sqrt((d + t)(1 + d - t)), which bounds the Lipschitz constant of the velocity.

    The path then ends in data and source with noise of size 2 R sqrt(d (1 + d)).

    Args:
        radius: R, of a ball that holds data and source.
        delta: d.

    Source: Benton, Deligiannidis and Doucet (2023), section 4.
    """
    _positive("radius", radius)
    _positive("delta", delta)
    root = lambda t: 2 * radius * jnp.sqrt((delta + t) * (1 + delta - t))
    return Interpolant(lambda t: 1 - t, lambda t: t, root)


def encode_decode() -> Interpolant:
    """Data to pure noise at t = 1/2, and noise to the source (Albergo et al. 2023, section 3)."""
    half = lambda t: jnp.cos(math.pi * t) ** 2
    return Interpolant(
        lambda t: jnp.where(t < 0.5, half(t), 0.0),
        lambda t: jnp.where(t < 0.5, 0.0, half(t)),
        lambda t: jnp.sin(math.pi * t) ** 2,
    )


def _of_path(name: str, **own: Any) -> Interpolant:
    path = gaussian.PATHS[name](**own)
    return Interpolant(path.alpha, path.sigma)


# The Gaussian paths that end in noise of variance one.
_GAUSSIAN = ("linear", "trigonometric", "vp_linear", "vp_cosine", "log_snr_linear")

INTERPOLANTS: dict[str, Callable[..., Interpolant]] = {
    **{name: partial(_of_path, name) for name in _GAUSSIAN},
    "bridge": bridge,
    "smooth_bridge": smooth_bridge,
    "regular_bridge": regular_bridge,
    "encode_decode": encode_decode,
}
# The keys of each interpolant, with their defaults.
KEYS: dict[str, dict[str, Any]] = {
    **{name: gaussian.KEYS[name] for name in _GAUSSIAN},
    "bridge": {"strength": 1.0},
    "smooth_bridge": {"strength": 1.0},
    "regular_bridge": {"radius": 1.0, "delta": 0.01},
    "encode_decode": {},
}


def build(config: dict[str, Any]) -> Interpolant:
    """The interpolant of `config.path`: a name in `INTERPOLANTS` with its keys.

    Raises:
        UserError: an unknown name, or a value that is not valid.
    """
    form = lookup(INTERPOLANTS, config["name"], "config.path.name")
    return form(**{k: v for k, v in config.items() if k in KEYS[config["name"]] and v is not None})


def ends(interpolant: Interpolant, v: Array, eta: Array, x: Array, t: Array):
    """(E[X0 | x], E[X1 | x]) [*S] each, from velocity and denoiser, at one time.

    The two solve alpha E0 + beta E1 = x - gamma eta and the same with slopes, so they are
    defined where alpha beta' differs from alpha' beta; elsewhere they are zero.
    """
    a, b, g, da, db, dg = coefficients(interpolant, t)
    place, speed = x - g * eta, v - dg * eta
    determinant = a * db - da * b
    regular = jnp.abs(determinant) > _TINY
    over = jnp.where(regular, 1 / jnp.where(regular, determinant, 1), 0)
    return over * (db * place - b * speed), over * (a * speed - da * place)


def score(interpolant: Interpolant, eta: Array, t: Array) -> Array:
    """grad log p_t(x) = -E[Z | x] / gamma: [*S]."""
    assert interpolant.gamma is not None
    return -eta / jnp.maximum(interpolant.gamma(t), _TINY)


def path(
    interpolant: Interpolant,
    shape: tuple[int, ...],
    head: str = "velocity",
    gaussian_source: bool = True,
    data_std: float = 1.0,
    space: Space | None = None,
) -> Path:
    """The conditional path of an interpolant.

    Args:
        interpolant: its coefficients.
        shape: [*S], one state.
        head: what the network predicts. `velocity`; `parts`, the mean of alpha' X0 + beta' X1
            and that of Z along the last axis, where there is a gamma; or, where there is none,
            any of `heads.HEADS`, in which X1 takes the place of the noise.
        gaussian_source: is X1 noise that is independent of X0? Then its mean is the denoiser.
        data_std: for the head `edm`.
        space: R^S if None.

    Raises:
        UserError: a head that does not go with the interpolant.
    """
    latent, parts = interpolant.gamma is not None, head == "parts"
    if parts and not latent:
        raise UserError("config.loss.head='parts' needs a path with gamma, such as bridge")
    if latent and head not in ("parts", "velocity"):
        raise UserError(f"config.loss.head={head!r} with gamma; valid: velocity, parts")
    pair = GaussianPath(interpolant.alpha, interpolant.beta, lambda snr: snr)
    if not parts:
        heads.coefficients(head, pair, jnp.full((), 0.5), data_std)  # an unknown head is named
    space = space or euclidean(shape)
    output = (*shape[:-1], (2 if parts else 1) * shape[-1])

    def draw(key, x0, x1, t):
        a, b, g, da, db, dg = coefficients(interpolant, t)
        z = jax.random.normal(key, x0.shape, x0.dtype)
        x = a * x0 + b * x1 + g * z
        if parts:
            return x, jnp.concatenate([da * x0 + db * x1, z], -1)
        if latent:
            return x, da * x0 + db * x1 + dg * z
        return x, heads.target(head, pair, x0, x1, t, data_std)

    def velocity(out, x, t):
        if parts:
            drift, eta = jnp.split(out, 2, -1)
            return drift + coefficients(interpolant, t)[5] * eta
        if head == "velocity":
            return out
        x0, x1 = heads.denoised(head, pair, out, x, t, data_std)
        _, _, _, da, db, _ = coefficients(interpolant, t)
        return da * x0 + db * x1

    def denoiser(out, x, t):
        """(gamma, eta) of the Gaussian part."""
        if parts:
            return interpolant.gamma(t), jnp.split(out, 2, -1)[1]  # type: ignore[misc]
        return interpolant.beta(t), heads.denoised(head, pair, out, x, t, data_std)[1]

    def start(key, x1, t):
        # At the last time only the source and the noise count.
        _, b, g, _, _, _ = coefficients(interpolant, t)
        return b * x1 + g * jax.random.normal(key, x1.shape, x1.dtype) if latent else x1

    def walk(key, out, x, t, s, size):
        g, eta = denoiser(out, x, t)
        h = t - s
        noise = jnp.sqrt(2 * size * g * h) * jax.random.normal(key, x.shape, x.dtype)
        random = jnp.where(s > 0, noise - h * size * eta, 0)  # what the data got would stay
        return space.project(x - h * velocity(out, x, t) + random)

    stochastic = parts or (gaussian_source and not latent)
    return Path(
        space=space,
        output=output,
        base=normal(shape),
        draw=draw,
        gap=lambda out, x, t, target: jnp.mean((out - target) ** 2),
        start=start,
        walk=walk if stochastic else None,
        **moves(space, velocity),
    )


def moves(space: Space, velocity: Callable[[Array, Array, Array], Array]) -> dict[str, Callable]:
    """The `step`, `midpoint` and `velocity` of a path with a velocity, along geodesics."""

    def go(x, v, h):
        return space.project(space.exp(x, h * space.tangent(x, v)))

    return {
        "step": lambda key, out, x, t, s: go(x, velocity(out, x, t), s - t),
        "midpoint": lambda key, out, x, middle, t, half, s: go(
            x, velocity(out, middle, half), s - t
        ),
        "velocity": velocity,
    }


def normal(shape: tuple[int, ...]) -> Distribution:
    """N(0, I) on R^S."""
    size = math.prod(shape)
    constant = 0.5 * size * math.log(2 * math.pi)
    return Distribution(
        lambda key: jax.random.normal(key, shape),
        lambda x: -0.5 * jnp.sum(x**2) - constant,
    )


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise UserError(f"config.path.{name}={value} must exceed 0")
