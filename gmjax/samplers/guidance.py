"""Guidance: wrappers Predict -> Predict, for any network, head and state space.

Classifier-free guidance extrapolates from the unconditional to the conditional output,
u + w (c - u). Applied to scores it samples from p_t(x)^(1 - w) p_t(x | y)^w; applied to logits
it samples sites from p(x0 | x_t)^(1 - w) p(x0 | x_t, y)^w, whatever the parametrisation: the known
factor q(x_t | x0) has total weight one in both.

Guidance by a likelihood adds w grad log p(y | x_t) to the score that the output stands for, by a
`shifts.Shift`. p(y | x_t) may come from a classifier trained on noised data, or, for a measurement
y = A x0 + noise of standard deviation s_y, from the denoiser itself,

    p(y | x_t) = N(A D(x_t), s_y^2 I + r_t^2 A A^T),   r_t^2 = s^2 sigma^2 / (alpha^2 s^2 + sigma^2)

which is exact for data N(0, s^2 I): with A = U S V^T the numbers U^T y are independent given x_t,
of variance s_y^2 + S_i^2 r_t^2 (`linear`). On a manifold the denoiser is exp_x(v_t score), v_t the
noise's variance, right where it is small beside the curvature (`shifts.exponential`). On finite
sets the network gives the law of every site, and Bayes' rule for one site, with what the others add
to y as Gaussian, needs no derivative (`discrete_reconstruction`).

A wrapper is given what it measures for a batch, and guidance by labels doubles the batch: wrap the
network by `classifier_free` first, and by the others around it.

Source: Ho and Salimans (2022); Dhariwal and Nichol (2021); Lin et al. (2024), section 3.4; Song
et al. (2023, pseudo-inverse guidance); on finite sets Schiff et al. (2024).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.paths import heads
from gmjax.processes.ctmc import Parametrisation
from gmjax.samplers.shifts import Shift
from gmjax.types import Array, Cond, Predict, PyTree, UserError

LogProb = Callable[[PyTree, Array, Cond], Array]  # (x [B, *S], t [B], cond) -> [B]
_NEVER = -1e29  # logits below are of impossible values


def check(interval: Any, rescale: float) -> None:
    """Raises `UserError` unless 0 <= low < high <= 1 and the share lies in [0, 1]."""
    if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
        raise UserError(f"config.sample.interval={interval}; valid: 0 <= low < high <= 1")
    if not 0 <= rescale <= 1:
        raise UserError(f"config.sample.rescale={rescale} must lie in [0, 1]")


def classifier_free(
    predict: Predict,
    scale: float,
    num_classes: int,
    interval: tuple[float, float] = (0.0, 1.0),
    rescale: float = 0.0,
    logits: PyTree = False,
) -> Predict:
    """Guided predictions: unconditional + scale (conditional - unconditional).

    Args:
        predict: a network trained with labels dropped to the null class. Of a tuple the first is
            guided, and the rest, such as a learned variance, is the conditional one's.
        scale: w; 0 is unconditional, 1 conditional, more is sharper.
        num_classes: the null label.
        interval: times (low, high) between which the scale holds; outside it is one.
        rescale: share in [0, 1] of the output that is brought to the conditional one's standard
            deviation over each example.
        logits: are outputs logits (or a dict that says it of each part)? Their level at a site says
            nothing, and the standard deviation is about the mean of each site.

    Returns:
        A `Predict` that evaluates the network once on a batch of twice the size.

    Raises:
        UserError: an interval that is not one, a share outside [0, 1].

    Source: Ho and Salimans (2022); Kynkaanniemi et al. (2024) for the interval; Lin et al.
    (2024), section 3.4, for the rescaling; on discrete posteriors Schiff et al. (2024).
    """
    check(interval, rescale)
    low, high = interval

    def guided(x: PyTree, t: Array, cond: Cond) -> PyTree:
        if cond is None or "label" not in cond:
            raise UserError("config.sample.guidance needs labels: cond={'label': [B] int}")
        null = {**cond, "label": jnp.full_like(cond["label"], num_classes)}
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), dict(cond), null)
        twice = lambda tree: jax.tree.map(lambda a: jnp.concatenate([a, a]), tree)
        out = predict(twice(x), twice(t), both)
        half = len(t)
        w = jnp.where((t >= low) & (t <= high), scale, 1.0)

        def mix(a, logits):
            c, u = a[:half], a[half:]
            mixed = u + heads.spread(w, c) * (c - u)
            return _rescaled(mixed, c, rescale, logits) if rescale else mixed

        def every(out):
            flags = logits if isinstance(logits, dict) else jax.tree.map(lambda _: logits, out)
            return jax.tree.map(mix, out, flags)

        if isinstance(out, tuple):
            return (every(out[0]), *jax.tree.map(lambda a: a[:half], out[1:]))
        return every(out)

    return guided


def _rescaled(mixed: Array, like: Array, share: float, logits: bool) -> Array:
    """`share` of `mixed` brought to the standard deviation of `like`, by example."""
    axes = tuple(range(1, mixed.ndim))

    def parts(a):
        """What stays and what is scaled; and its size."""
        if not logits:
            return 0.0, a, jnp.std(a, axes, keepdims=True)
        fits = a > _NEVER
        count = jnp.maximum(jnp.sum(fits, -1, keepdims=True), 1)
        middle = jnp.sum(jnp.where(fits, a, 0), -1, keepdims=True) / count
        around = jnp.where(fits, a - middle, 0)
        size = jnp.sqrt(
            jnp.sum(around**2, axes, keepdims=True) / jnp.sum(count, axes, keepdims=True)
        )
        return jnp.where(fits, middle, a), around, size

    (stays, moves, size), (_, _, wanted) = parts(mixed), parts(like)
    ratio = jnp.where(size > 0, wanted / jnp.where(size > 0, size, 1.0), 1.0)
    return stays + moves * (1 - share + share * ratio)


def classifier(
    predict: Predict,
    log_prob: LogProb,
    shift: Shift,
    scale: float = 1.0,
    encode: Callable[[PyTree], PyTree] = lambda x: x,
    gradient: Callable[[PyTree, PyTree], PyTree] = lambda x, g: g,
) -> Predict:
    """Predictions whose score has scale times grad log p(y | x_t) added.

    Args:
        predict: the network.
        log_prob: (encode(x), t [B], cond) -> [B], log p(y | x_t) up to a constant.
        shift: how a change of the score changes the output: `shifts.gaussian(path, head)`,
            `shifts.process(process)` or `shifts.logits`.
        scale: w.
        encode: of finite sets `shifts.one_hot(K)`; else the identity.
        gradient: (x, derivatives) -> tangent vectors, of manifolds `shifts.tangent(space)`.

    Raises:
        UserError: integers without `encode`.
    """

    def guided(x: PyTree, t: Array, cond: Cond) -> PyTree:
        z = encode(x)
        if any(jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in jax.tree.leaves(z)):
            raise UserError(
                "guidance by a likelihood: integers have no derivative; of finite sets give"
                " encode=shifts.one_hot(K)"
            )
        g = jax.grad(lambda z: jnp.sum(log_prob(z, t, cond)))(z)
        return shift(predict(x, t, cond), _times(scale, gradient(x, g)), x, t)

    return guided


def reconstruction(
    predict: Predict,
    denoise: Callable[[PyTree, PyTree, Array], PyTree],
    shift: Shift,
    measure: Callable[[PyTree], Array],
    y: Array,
    std: Callable[[Array], Array],
    scale: float = 1.0,
    gradient: Callable[[PyTree, PyTree], PyTree] = lambda x, g: g,
) -> Predict:
    """Predictions given y = measure(x0) + noise, through the network's own x0.

    Args:
        predict: the network.
        denoise: (out, x, t) -> x0 [B, *S].
        shift: see `classifier`.
        measure: x0 [B, *S] -> what is measured of each, [B, *M].
        y: the measurements, [B, *M] or [*M] for all.
        std: t [B] -> [B] or [B, *M], the standard deviation of y - measure(D(x_t)), whose entries
            count as independent: of y = A x0 + noise see `linear`.
        scale: w; 1 for the posterior.
        gradient: see `classifier`.

    Returns:
        A `Predict` that costs one evaluation and one vector-Jacobian product.

    Raises:
        UserError: measurements that do not fit.
    """

    def guided(x: PyTree, t: Array, cond: Cond) -> PyTree:
        def log_prob(x):
            out = predict(x, t, cond)
            seen = measure(denoise(out, x, t))
            if jnp.shape(y) not in (seen.shape, seen.shape[1:]):
                raise UserError(
                    f"y has shape {jnp.shape(y)}; valid for this batch: {seen.shape}, or"
                    f" {seen.shape[1:]} for all (guidance by labels goes inside)"
                )
            gap = (y - seen) / heads.spread(std(t), seen)
            return -0.5 * jnp.sum(gap**2), out

        g, out = jax.grad(log_prob, has_aux=True)(x)
        return shift(out, _times(scale, gradient(x, g)), x, t)

    return guided


def inpainting(
    predict: Predict,
    denoise: Callable[[Array, Array, Array], Array],
    shift: Shift,
    observed: Array,
    values: Array,
    std: Callable[[Array], Array],
) -> Predict:
    """`reconstruction` where the entries that `observed` marks, bool [B, *S], are `values`.

    Args:
        std: t -> r_t, such as `shifts.remaining_std(path)`.
    """
    seen = lambda x0: jnp.where(observed, x0, 0.0)
    return reconstruction(predict, denoise, shift, seen, seen(values), std)


def linear(
    predict: Predict,
    denoise: Callable[[Array, Array, Array], Array],
    shift: Shift,
    matrix: Any,
    y: Array,
    noise: float,
    std: Callable[[Array], Array],
    scale: float = 1.0,
) -> Predict:
    """`reconstruction` given y = A x0 + noise, x0 [*S] laid out in a row of D numbers.

    Args:
        predict, denoise, shift, scale: see `reconstruction`.
        matrix: A, [M, D], known when the wrapper is made.
        y: [B, M], or [M] for all.
        noise: s_y >= 0.
        std: t -> r_t, such as `shifts.remaining_std(path, data_std)`.

    Raises:
        UserError: negative noise, a matrix that is none.
    """
    matrix = np.asarray(matrix)
    if noise < 0:
        raise UserError(f"noise={noise} must be 0 or more")
    if matrix.ndim != 2 or not matrix.any():
        raise UserError(f"a matrix of shape {matrix.shape}; valid: [M, D], not all zero")
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    seen = s > s[0] * max(matrix.shape) * np.finfo(s.dtype).eps
    u, s, v = u[:, seen], s[seen], v[seen]
    measure = lambda x0: x0.reshape(len(x0), -1) @ (s[:, None] * v).T
    spread = lambda t: jnp.sqrt(noise**2 + (s * std(t)[:, None]) ** 2)
    return reconstruction(predict, denoise, shift, measure, jnp.asarray(y) @ u, spread, scale)


def _times(scale: float, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda a: scale * a, tree)


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
        read: how they are read: `ctmc.posterior` or `ctmc.leave_one_out`, not `ctmc.log_ratio`.
        levels: w, [V].
        matrix: A, [M, D] for D sites in all.
        y: [B, M], or [M] for all.
        noise: s > 0.
        scale: w; 1 for the posterior.

    Returns:
        A `Predict` that costs one evaluation and a linear system of size M.

    Raises:
        UserError: no noise; outputs that are no logits; levels or a matrix that do not fit them.
    """
    levels, matrix = jnp.asarray(levels), jnp.asarray(matrix)
    if not read.logits:
        raise UserError("read: log ratios are no logits of values; valid: posterior, leave_one_out")
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
