"""Guidance: wrappers Predict -> Predict, for any network, head and state space.

Classifier-free guidance extrapolates from the unconditional to the conditional output,
u + w (c - u). Applied to scores it samples from p_t(x)^(1 - w) p_t(x | y)^w; applied to logits
it samples sites from p(x0 | x_t)^(1 - w) p(x0 | x_t, y)^w, whatever the parametrisation: the known
factor q(x_t | x0) has total weight one in both.

Guidance by a likelihood adds w grad log p(y | x_t) to the score that the output stands for. How
a change g of the score changes an output is a `Shift`:

    Gaussian path    out = p x0 + q eps, x0 = (x + sigma^2 s) / alpha, eps = -sigma s:
                     out + (sigma c / alpha) g,  c = sigma p - alpha q
    any diffusion    out + std g, std being what the process's `read` divides by
    finite sets      logits + g, g the derivative in the one-hot vector of each site: log-ratios
                     log p(y | x') - log p(y | x) of one-site changes to first order

p(y | x_t) may come from a classifier trained on noised data, or, for y = A x0 + noise of standard
deviation s_y, from the denoiser itself (`reconstruction`),

    p(y | x_t) = N(A D(x_t), s_y^2 + r_t^2),    r_t^2 = s^2 sigma^2 / (alpha^2 s^2 + sigma^2),

which is exact for A A^T = I and data N(0, s^2 I). On a manifold the denoiser is exp_x(v_t score),
v_t the noise's variance, right where it is small beside the curvature (`exponential`). On finite
sets the network gives the law of every site, and Bayes' rule for one site, with what the others add
to y as Gaussian, needs no derivative (`discrete_reconstruction`).

Source: Ho and Salimans (2022); Dhariwal and Nichol (2021); Lin et al. (2024), section 3.4; Song
et al. (2023, pseudo-inverse guidance); on finite sets Schiff et al. (2024).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax.paths import heads
from gmjax.paths.gaussian import GaussianPath
from gmjax.processes.ctmc import Parametrisation
from gmjax.types import Array, Cond, Predict, Process, Space, UserError

Shift = Callable[[Array, Array, Array, Array], Array]  # (out, g, x, t) -> out, batched
LogProb = Callable[[Array, Array, Cond], Array]  # (x [B, *S], t [B], cond) -> [B]


def classifier_free(
    predict: Predict,
    scale: float,
    num_classes: int,
    interval: tuple[float, float] = (0.0, 1.0),
    rescale: float = 0.0,
) -> Predict:
    """Guided predictions: unconditional + scale (conditional - unconditional).

    Args:
        predict: a network trained with labels dropped to the null class.
        scale: w; 0 is unconditional, 1 conditional, more is sharper.
        num_classes: the null label.
        interval: times (low, high) between which the scale holds; outside it is one.
        rescale: share in [0, 1] of the output that is brought to the conditional one's standard
            deviation over each example.

    Returns:
        A `Predict` that evaluates the network once on a batch of twice the size.

    Raises:
        UserError: an interval that is not one, a share outside [0, 1].

    Source: Ho and Salimans (2022); Kynkaanniemi et al. (2024) for the interval; Lin et al.
    (2024), section 3.4, for the rescaling; on discrete posteriors Schiff et al. (2024).
    """
    low, high = interval
    if not 0 <= low < high <= 1:
        raise UserError(f"config.sample.interval={(low, high)}; valid: 0 <= low < high <= 1")
    if not 0 <= rescale <= 1:
        raise UserError(f"config.sample.rescale={rescale} must lie in [0, 1]")

    def guided(x: Array, t: Array, cond: Cond) -> Array:
        if cond is None or "label" not in cond:
            raise UserError("config.sample.guidance needs labels: cond={'label': [B] int}")
        null = {**cond, "label": jnp.full_like(cond["label"], num_classes)}
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), dict(cond), null)
        twice = lambda tree: jax.tree.map(lambda a: jnp.concatenate([a, a]), tree)
        out = predict(twice(x), twice(t), both)
        half = len(t)
        w = jnp.where((t >= low) & (t <= high), scale, 1.0)

        def mix(a):
            c, u = a[:half], a[half:]
            mixed = u + heads.spread(w, c) * (c - u)
            if not rescale:
                return mixed
            axes = tuple(range(1, c.ndim))
            std = lambda a: jnp.std(a, axes, keepdims=True)
            size = std(mixed)
            share = jnp.where(size > 0, std(c) / jnp.where(size > 0, size, 1.0), 1.0)
            return mixed * (1 - rescale + rescale * share)

        return jax.tree.map(mix, out)

    return guided


def classifier(
    predict: Predict,
    log_prob: LogProb,
    shift: Shift,
    scale: float = 1.0,
    encode: Callable[[Array], Array] = lambda x: x,
    gradient: Callable[[Array, Array], Array] = lambda x, g: g,
) -> Predict:
    """Predictions whose score has scale times grad log p(y | x_t) added.

    Args:
        predict: the network.
        log_prob: (encode(x), t [B], cond) -> [B], log p(y | x_t) up to a constant.
        shift: how a change of the score changes the output: `gaussian_shift`, `process_shift`
            or `logit_shift`.
        scale: w.
        encode: of finite sets `one_hot(S)`; else the identity.
        gradient: (x, derivatives) -> tangent vectors, of manifolds `tangent(space)`.
    """

    def guided(x: Array, t: Array, cond: Cond) -> Array:
        g = jax.grad(lambda z: jnp.sum(log_prob(z, t, cond)))(encode(x))
        return shift(predict(x, t, cond), scale * gradient(x, g), x, t)

    return guided


def reconstruction(
    predict: Predict,
    denoise: Callable[[Array, Array, Array], Array],
    shift: Shift,
    measure: Callable[[Array], Array],
    y: Array,
    std: Callable[[Array], Array],
    scale: float = 1.0,
    gradient: Callable[[Array, Array], Array] = lambda x, g: g,
) -> Predict:
    """Predictions given y = measure(x0) + noise, through the network's own x0.

    Args:
        predict: the network.
        denoise: (out, x, t) -> x0 [B, *S].
        shift: see `classifier`.
        measure: x0 [B, *S] -> what is measured of each, [B, *M].
        y: the measurements, [B, *M] or [*M] for all.
        std: t -> sqrt(s_y^2 + r_t^2), the standard deviation of y - measure(D(x_t)).
        scale: w; 1 for the posterior.
        gradient: see `classifier`.

    Returns:
        A `Predict` that costs one evaluation and one vector-Jacobian product.
    """

    def guided(x: Array, t: Array, cond: Cond) -> Array:
        def log_prob(x):
            out = predict(x, t, cond)
            seen = measure(denoise(out, x, t))
            gap = (y - seen) / heads.spread(std(t), seen)
            return -0.5 * jnp.sum(gap**2), out

        g, out = jax.grad(log_prob, has_aux=True)(x)
        return shift(out, scale * gradient(x, g), x, t)

    return guided


def inpainting(
    predict: Predict,
    denoise: Callable[[Array, Array, Array], Array],
    shift: Shift,
    observed: Array,
    values: Array,
    std: Callable[[Array], Array],
) -> Predict:
    """`reconstruction` where the entries that `observed` marks, bool [B, *S], are `values`."""
    seen = lambda x0: jnp.where(observed, x0, 0.0)
    return reconstruction(predict, denoise, shift, seen, seen(values), std)


def discrete_reconstruction(
    predict: Predict,
    read: Parametrisation,
    levels: Array,
    matrix: Array,
    y: Array,
    noise: float,
    scale: float = 1.0,
) -> Predict:
    """Logits given y = A w(x0) + noise on a finite set, w[v] the level that value v stands for.

    Given x_t sites are independent, with means m and variances c of their levels. For one site,
    what the others add to y is taken as Gaussian, of covariance R - c a a^T, a the site's column of
    A and R = A diag(c) A^T + s^2 I. With u = a^T R^-1 (y - A m), h = a^T R^-1 a and d = w - m,
    Bayes' rule adds to its logits, by the formula of Sherman and Morrison,

        (d u - d^2 h / 2) / (1 - c h).

    For independent data this is exact where every row of A measures one site, and else off by the
    fourth order in 1 / s.

    Args:
        predict: a network whose outputs are logits of values.
        read: how they are read: `ctmc.posterior` or `ctmc.leave_one_out`.
        levels: w, [V].
        matrix: A, [M, D] for D sites in all.
        y: [B, M], or [M] for all.
        noise: s > 0.
        scale: w; 1 for the posterior.

    Returns:
        A `Predict` that costs one evaluation and a linear system of size M.

    Raises:
        UserError: no noise; levels or a matrix that do not fit the outputs.
    """
    levels, matrix = jnp.asarray(levels), jnp.asarray(matrix)
    if not noise > 0:
        raise UserError(f"noise={noise} must be positive")

    def change(log_p, y):
        p = jax.nn.softmax(log_p.reshape(-1, len(levels)), -1)
        m = p @ levels
        d = levels - m[:, None]
        c = jnp.sum(p * d**2, -1)
        covariance = (matrix * c) @ matrix.T + noise**2 * jnp.eye(len(matrix))
        weights = jnp.linalg.solve(covariance, matrix)
        u, h = (y - matrix @ m) @ weights, jnp.sum(matrix * weights, 0)
        # 1 - c h is what R without the other sites gives, or more; rounding must not say less.
        least = noise**2 / (noise**2 + c * jnp.sum(matrix**2, 0))
        rest = jnp.maximum(1 - c * h, least)[:, None]
        return ((d * u[:, None] - 0.5 * d**2 * h[:, None]) / rest).reshape(log_p.shape)

    def guided(x: Array, t: Array, cond: Cond) -> Array:
        out = predict(x, t, cond)
        log_p = jax.vmap(read.log_posterior)(out, x, t)
        fits = (x[0].size, log_p.shape[-1])
        if matrix.shape[1:] + levels.shape != fits:
            raise UserError(
                f"a matrix of shape {matrix.shape} and {levels.shape} levels; valid for these"
                f" outputs: (M, {fits[0]}) and ({fits[1]},)"
            )
        seen = jnp.broadcast_to(y, (len(x), len(matrix)))
        return out + scale * jax.vmap(change)(log_p, seen)

    return guided


def exponential(
    process: Process, variance: Callable[[Array], Array]
) -> Callable[[Array, Array, Array], Array]:
    """The denoiser exp_x(v_t score) of a manifold: (out, x, t) -> x0, batched.

    Args:
        variance: t -> v_t of the noise, a coordinate of the tangent space.
    """
    read, space = process.read, process.space
    if read is None:
        raise ValueError("this process has no read, and its outputs no score")
    one = lambda out, x, t: space.exp(x, variance(t) * read(out, x, t))
    return jax.vmap(one)


def measurement_std(
    path: GaussianPath, noise: float, data_std: float = 1.0
) -> Callable[[Array], Array]:
    """t -> sqrt(s_y^2 + r_t^2) for data of standard deviation s and noise of s_y."""

    def std(t):
        a, s = path.alpha(t), path.sigma(t)
        return jnp.sqrt(noise**2 + (data_std * s) ** 2 / ((a * data_std) ** 2 + s**2))

    return std


def gaussian_shift(path: GaussianPath, head: str, data_std: float = 1.0) -> Shift:
    """For a head of `paths.heads`: out + (sigma c / alpha) g."""

    def shift(out, g, x, t):
        a, s = path.alpha(t), path.sigma(t)
        p, q = heads.coefficients(head, path, t, data_std)
        # sigma c / alpha = sigma^2 p / alpha - sigma q; where alpha is zero, x0 is not known
        # from x, y says nothing of the noise, and g is zero.
        gain = jnp.where(a > 0, s**2 * p / jnp.where(a > 0, a, 1.0), 0.0) - s * q
        return out + heads.spread(gain, g) * g

    return shift


def process_shift(process: Process) -> Shift:
    """For processes whose `read` is a division by std(t), as those of `processes.diffusions`."""
    read = process.read
    if read is None:
        raise ValueError("this process has no read, and its outputs no score to shift")

    def one(out, g, x, t):
        slope, size = jnp.sum(g * read(g, x, t)), jnp.sum(g * g)
        return out + jnp.where(size > 0, size / jnp.where(size > 0, slope, 1.0), 0.0) * g

    return jax.vmap(one)


def logit_shift(out: Array, g: Array, x: Array, t: Array) -> Array:
    """For logits over values: the first V of the derivatives, relative to the present state."""
    del t
    now = jnp.take_along_axis(g, x[..., None], -1)
    return out + (g - now)[..., : out.shape[-1]]


def one_hot(num_states: int) -> Callable[[Array], Array]:
    """x [B, *S] int -> [B, *S, K] float."""
    return lambda x: jax.nn.one_hot(x, num_states)


def tangent(space: Space) -> Callable[[Array, Array], Array]:
    """Derivatives in the embedding's coordinates as Riemannian gradients: sum_k (e_k . g) e_k."""

    def one(x, g):
        e = space.frame(x)
        return jnp.tensordot(jnp.sum(e * g, tuple(range(1, e.ndim))), e, 1)

    return jax.vmap(one)
