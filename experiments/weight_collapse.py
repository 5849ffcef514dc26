r"""The gap of VR-IWAE bounds in high dimensions, where one weight outweighs all others.

With k = 1 - alpha, B^2 = Var log w and E the ELBO less log p(x), three descriptions of the gap
l - log p(x) compete (Daudel et al. 2023, theorems 3, 4 and 5):

    limit      the VR bound, which N -> infinity reaches
    1/N        limit - gamma_alpha^2 / (2 N)
    collapse   E + B sqrt(2 log N) - log(N) / k, or sharper E + B a_N - log(N) / k

The last is for N fixed as d grows, or growing with log N / d -> 0 where log w is normal (then
E = -B^2 / 2) and log N / d^(1/3) -> 0 where it is a sum over d coordinates: l = (log sum w^k - log
N) / k is then all but its largest term, E + B max_j S_j with S standard normal. sqrt(2 log N) is
the leading order of the mean a_N of that largest one, which is known exactly and against which
the gap is tested at fixed N: (gap - E + log(N) / k) / B -> a_N.

The gaps are of the shifted Gaussian, N(0, I) against N(1, I); of the linear-Gaussian model at its
best parameters and perturbed ones, both in any dimension through two numbers a particle (see
`experiments.linear_gaussian`); and of autoencoders trained on the digits with more and more codes,
whose weights, before and after training, make the histograms.

Run `python -m experiments.weight_collapse`; every function takes the laws, N and alpha.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import collapse_page, page, trained_vae, verdict
from experiments import linear_gaussian as lg
from experiments.replicates import collect
from gmjax.losses import variational


class Family(NamedTuple):
    """A pair of Gaussian laws in every dimension."""

    name: str
    pair: lg.Pair
    h2: float  # |delta|^2 a coordinate


FAMILIES = (
    Family("shifted Gaussian", lg.SHIFTED, 1.0),
    Family("linear Gaussian, .01", lg.LINEAR, 3.25 * 0.01**2),
    Family("linear Gaussian, .5", lg.LINEAR, 3.25 * 0.5**2),
)


SIZES = tuple(2**j for j in range(1, 12))


class Preset(NamedTuple):
    """How much to run."""

    families: Sequence[Family] = FAMILIES
    dims: Sequence[int] = (10, 100, 1000, 10_000, 100_000)
    sizes: Sequence[int] = SIZES
    alphas: Sequence[float] = (0.0, 0.2, 0.5)
    replicates: int = 240
    chunk: int = 60
    latents: Sequence[int] = (1, 10, 100, 1000, 10_000)
    gaps: Sequence[int] = (10, 100, 1000)  # of the latents
    vae: str = "digits"
    steps: int = 300
    images: int = 8
    draws: int = 8192  # an image, of the gaps; for the histograms 1000 or 1024
    many: int = 100  # particles of a histogram


PRESETS = {
    "default": Preset(),
    "paper": Preset(
        sizes=tuple(2**j for j in range(1, 17)),
        alphas=(0.0, 0.2, 0.5, 0.9),
        replicates=2000,
        chunk=100,
        vae="binarized_mnist",
        steps=14_000,
        images=100,
        draws=2**17,
    ),
    "smoke": Preset(
        families=FAMILIES[:2],
        dims=(10, 1000, 100_000),
        sizes=(2, 16, 128),
        alphas=(0.0, 0.5),
        replicates=300,
        chunk=300,
        latents=(2, 20),
        gaps=(20,),
        steps=10,
        draws=256,
        images=2,
    ),
}


class Row(NamedTuple):
    """A gap of N particles beside its descriptions, nats."""

    family: str
    dims: int
    alpha: float
    n: int
    gap: float  # E l - log p(x)
    error: float
    elbo: float  # E
    spread: float  # B
    limit: float
    expansion: float  # 1/N; -inf where gamma_alpha^2 is above e^690
    collapse: float
    sharp: float  # the same with a_N
    largest: float  # (gap - E + log(N) / k) / B


def row(family, dims, alpha, n, gap, error, elbo, spread, limit, log_gamma2) -> Row:
    """The descriptions of one gap."""
    k = 1 - alpha
    expansion = limit - (math.exp(log_gamma2) / (2 * n) if log_gamma2 < 690 else math.inf)
    collapse = elbo + spread * math.sqrt(2 * math.log(n)) - math.log(n) / k
    sharp = elbo + spread * lg.expected_maximum(n) - math.log(n) / k
    largest = (gap - elbo + math.log(n) / k) / spread
    figures = map(float, (gap, error, elbo, spread, limit, expansion, collapse, sharp, largest))
    return Row(family, dims, alpha, n, *figures)


# -- Gaussian laws ------------------------------------------------------------------------------


def gaussian_gaps(key, family: Family, preset: Preset) -> list[Row]:
    """A row for every dimension, order and size; smaller sizes share the draws in groups."""
    dims = jnp.asarray(preset.dims, jnp.float32)
    orders = jnp.asarray(preset.alphas, jnp.float32)

    def own(inputs):
        d, key = inputs
        h = jnp.sqrt(d * family.h2)[None]
        log_w = lg.radial(key, max(preset.sizes), d, h, family.pair)[0][:, 0]
        bounds = [
            jax.vmap(lambda a, n=n: jnp.mean(variational.bound(log_w.reshape(n, -1), a)))(orders)
            for n in preset.sizes
        ]
        return jnp.stack(bounds)

    draw = lambda key: jax.lax.map(own, (dims, jax.random.split(key, len(dims))))
    found = collect(draw, key, preset.replicates, preset.chunk, family.name).astype(np.float64)
    mean, error = found.mean(0), found.std(0, ddof=1) / preset.replicates**0.5
    rows = []
    for i, d in enumerate(preset.dims):
        about = d, d * family.h2, family.pair
        elbo, spread = float(lg.elbo_gap(*about)), float(lg.spread(*about)) ** 0.5
        for a, alpha in enumerate(preset.alphas):
            limit, log_g = (float(f(alpha, *about)) for f in (lg.limit_gap, lg.log_gamma2))
            for j, n in enumerate(preset.sizes):
                measured = mean[i, j, a], error[i, j, a]
                rows.append(row(family.name, d, alpha, n, *measured, elbo, spread, limit, log_g))
    return rows


# -- autoencoders -------------------------------------------------------------------------------


class Weights(NamedTuple):
    """Log-weights of an autoencoder: [draws, images] each."""

    latent: int
    start: np.ndarray
    trained: np.ndarray


def autoencoder(key, latent: int, preset: Preset) -> Weights:
    """Trains one and draws."""
    got = trained_vae.train(latent, preset.steps, preset.images, preset.vae)
    chunk = 64 if preset.draws >= 1024 else preset.draws
    few = min(preset.draws, 1024)
    draws = preset.draws if latent in preset.gaps else few
    keys = jax.random.split(key)
    own = [
        trained_vae.log_weights(got.model, params, got.x, k, n, chunk)
        for params, k, n in zip((got.start, got.params), keys, (few, draws), strict=True)
    ]
    return Weights(latent, *own)


def vae_gaps(found: Weights, preset: Preset, name: str = "autoencoder") -> list[Row]:
    """Rows of a trained autoencoder, means over the images; log p(x) is the bound of all draws.

    Half of the draws make the limits and gamma_alpha^2, the other half the bounds.
    """
    half = len(found.trained) // 2
    far, near = (jnp.asarray(a, jnp.float32) for a in np.split(found.trained, [half]))
    truth = np.asarray(variational.bound(far, 0.0), np.float64)
    elbo = np.asarray(far, np.float64).mean(0) - truth
    spread = np.asarray(far, np.float64).std(0)
    rows = []
    for alpha in preset.alphas:
        k = 1 - alpha
        limit = np.asarray(variational.bound(far, alpha), np.float64) - truth
        size = np.asarray(variational.effective_size(far, alpha), np.float64)
        log_g = math.log(np.mean((half / size - 1) / k))
        for n in (n for n in preset.sizes if n <= half // 8):
            groups = variational.bound(near.reshape(n, half // n, -1), alpha)
            own = np.asarray(groups, np.float64) - truth
            error = math.sqrt(np.sum(own.var(0, ddof=1) / len(own))) / own.shape[1]
            figures = own.mean(), error, elbo.mean(), spread.mean(), limit.mean(), log_g
            rows.append(row(name, found.latent, alpha, n, *figures))
    return rows


def concentration(log_w: np.ndarray, alpha: float, n: int) -> tuple[float, float]:
    """(mean effective size, mean largest weight) of groups of n particles."""
    v = normalised(log_w, alpha, n)
    return float(np.mean(1 / np.sum(v**2, 0))), float(np.mean(v.max(0)))


def normalised(log_w: np.ndarray, alpha: float, n: int) -> np.ndarray:
    """Weights of groups of n particles, which sum to one: [n, groups]."""
    groups = log_w[: len(log_w) // n * n].reshape(n, -1)
    return np.asarray(variational.weights(jnp.asarray(groups), alpha))


# -- verdicts -----------------------------------------------------------------------------------


def verdicts(rows: Sequence[Row], weights: Sequence[Weights], preset: Preset) -> list[str]:
    """One line a claim."""
    lines = []
    for family in preset.families:
        for alpha in preset.alphas:
            own = [r for r in rows if (r.family, r.alpha) == (family.name, alpha)]
            lines += _largest(family, alpha, own, preset)
            lines += _best(family.name, alpha, own, preset)
    for d in preset.gaps:
        own = [r for r in rows if (r.family, r.dims, r.alpha) == ("autoencoder", d, 0.0)]
        last = own[-1]
        lines.append(
            f"autoencoder of {d} codes: gap {own[0].gap:.2f} at N = {own[0].n}, {last.gap:.3f} +-"
            f" {last.error:.3f} at {last.n}; ELBO {last.elbo:.2f}, B {last.spread:.2f}; 1/N"
            f" {last.expansion:.3f}, collapse {last.collapse:.2f}"
        )
    for w in weights:
        parts = []
        for alpha in preset.alphas:
            sizes = [concentration(x, alpha, preset.many) for x in (w.start, w.trained)]
            parts.append(f"alpha {alpha:g}: {sizes[0][0]:.1f} and {sizes[1][0]:.1f}")
        lines.append(
            f"effective size of {preset.many}, {w.latent} codes, before and after training:"
            f" {'; '.join(parts)}"
        )
    return lines


DESCRIPTIONS = ("limit", "expansion", "collapse", "sharp")
MARGIN = 0.02  # of a_N, what a finite dimension may leave at the largest d


def _largest(family, alpha, rows, preset):
    """At the largest d: is the gap made by the largest weight?"""
    d, lines = max(preset.dims), []
    for n in (min(preset.sizes), max(preset.sizes)):
        got = next(r for r in rows if (r.dims, r.n) == (d, n))
        exact, half = lg.expected_maximum(n), 1.96 * got.error / got.spread
        about = verdict.about(got.largest, half)
        said = verdict.judge(about, (1 - MARGIN) * exact, (1 + MARGIN) * exact)
        lines.append(
            f"{family.name}, alpha {alpha:g}, d {d}, N {n}: (gap - E + log N / k) / B ="
            f" {got.largest:.4f} +- {half:.4f}, theorem a_N = {exact:.4f}"
            f" (sqrt(2 log N) = {math.sqrt(2 * math.log(n)):.3f}): "
            f"{said}"
        )
    return lines


def _best(name, alpha, rows, preset):
    """Which description is nearest at the largest N of each dimension."""
    parts = []
    for d in preset.dims:
        r = next(r for r in rows if (r.dims, r.n) == (d, max(preset.sizes)))
        far = {k: abs(getattr(r, k) - r.gap) for k in DESCRIPTIONS}
        best = min(far, key=lambda k: far[k])
        part = f"d {d}: gap {r.gap:.4g}, {best} off by {far[best]:.2g}"
        parts.append(part)
    return [f"    {name}, alpha {alpha:g}, N {max(preset.sizes)}: {'; '.join(parts)}"]


def run(preset: Preset, out: Path) -> list[str]:
    """Measures, then writes gaps.csv, figure.png, figure.pdf and verdicts.txt to `out`."""
    keys = jax.random.split(jax.random.key(0), 2)
    rows: list[Row] = []
    for i, family in enumerate(preset.families):
        rows += gaussian_gaps(jax.random.fold_in(keys[0], i), family, preset)
    weights = [autoencoder(jax.random.fold_in(keys[1], d), d, preset) for d in preset.latents]
    for w in weights:
        if w.latent in preset.gaps:
            rows += vae_gaps(w, preset)
    page.table(out / "gaps.csv", rows)
    orders = [a for a in preset.alphas if a < 0.9]
    shares = {
        (w.latent, alpha, when): normalised(x, alpha, preset.many).ravel()
        for w in weights
        for alpha in orders
        for when, x in (("start", w.start), ("trained", w.trained))
    }
    collapse_page.figure(rows, shares, out / "figure")
    lines = verdicts(rows, weights, preset)
    return page.say(out, lines)


def main() -> None:
    """The command line of `run`."""
    page.command("weight_collapse", run, PRESETS, __doc__)


if __name__ == "__main__":
    main()
