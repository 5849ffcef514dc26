"""The posterior of the g-and-k law by conditional simulation, for every data set at once.

A pair of theta ~ U[0, 10]^4 and n draws from the law with the parameters theta is a draw of their
joint law; a diffusion of theta with the data as context, trained on such pairs alone, samples
p(theta | data) for any data in one reverse run (Benton et al. 2022, section 6.1;
`experiments.g_and_k_network`). The claim is checked in two ways: theta must rank uniformly among
the draws for its own data (simulation-based calibration, Talts et al. 2018), and for data of the
paper's parameters the draws must have the exact posterior, which `experiments.g_and_k_reference`
samples with the likelihood. Ranks alone would pass a sampler that forgets the data.

Run `python -m experiments.g_and_k`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import scipy.stats

from experiments import g_and_k_reference as exact
from experiments import page, verdict
from experiments.g_and_k_network import Training, fit, observed, sampler, simulate
from experiments.g_and_k_reference import NAMES, TRUTH
from experiments.measure import p_value
from gmjax.types import Key


class Preset(NamedTuple):
    """How much to run."""

    training: Training
    stepper: str  # a name in `markov.STEPPERS`
    steps: int
    data_sets: int  # of the paper's parameters, compared with MCMC
    posterior_draws: int  # for each of them
    pairs: int  # L, of the calibration
    ranked: int  # M, draws a pair: a rank is one of M + 1
    bins: int  # of the ranks; divides M + 1
    ensembles: int
    walkers: int
    burn: int
    chain: int  # steps kept


# -- measurement --------------------------------------------------------------------------------


class Row(NamedTuple):
    """One marginal of one posterior, against that of MCMC."""

    data: int
    method: str  # mcmc, gaussian or diffusion; mcmc is compared half against half
    parameter: str
    truth: float
    mean: float
    std: float
    shift: float  # difference of means, in standard deviations of MCMC
    ratio: float  # of standard deviations
    wasserstein: float  # W_1, in standard deviations of MCMC
    ks: float  # Kolmogorov-Smirnov distance
    r_hat: float = float("nan")
    effective: float = float("nan")  # draws


def compare(x: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The distances in a `Row` of draws x [n] from reference [m]."""
    scale = reference.std()
    return {
        "shift": float((x.mean() - reference.mean()) / scale),
        "ratio": float(x.std() / scale),
        "wasserstein": float(scipy.stats.wasserstein_distance(x, reference) / scale),
        "ks": float(scipy.stats.ks_2samp(x, reference).statistic),
    }


def ranks(y: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """How many draws [L, M, d] lie below y [L, d]: [L, d] in 0 .. M."""
    return np.sum(np.asarray(draws) < np.asarray(y)[:, None], 1)


def rank_counts(rank: np.ndarray, ranked: int, bins: int) -> np.ndarray:
    """A histogram of ranks [L, d] in 0 .. M into equal bins: [d, bins]."""
    share = rank * bins // (ranked + 1)
    return np.stack([np.bincount(r, minlength=bins) for r in share.T])


def uniformity(counts: np.ndarray) -> np.ndarray:
    """The chi-square p-values that counts [d, bins] are of uniform ranks: [d]."""
    return np.array([p_value(c, np.ones(len(c))) for c in counts])


def band(pairs: int, bins: int, level: float = 0.01) -> tuple[float, float]:
    """What all counts of a uniform histogram lie within with probability 1 - level or more."""
    low, high = scipy.stats.binom.interval(1 - level / bins, pairs, 1 / bins)
    return float(low), float(high)


def posterior_rows(
    data: int, chains: exact.Chains, groups: int, own: Mapping[str, np.ndarray]
) -> Iterator[Row]:
    """The rows of one data set: those of MCMC and those of each method's draws [m, 4] of theta."""
    theta = np.asarray(exact.to_theta(chains.x))
    r_hat, effective = exact.r_hat(theta), exact.effective_size(theta, groups)
    half = theta.shape[1] // groups * (groups // 2)
    for j, name in enumerate(NAMES):
        reference = theta[..., j]

        def row(method, x, against, j=j, name=name, **checks):
            moments = float(x.mean()), float(x.std())
            distances = compare(x.ravel(), against.ravel())
            return Row(data, method, name, TRUTH[j], *moments, **distances, **checks)

        checks = {"r_hat": float(r_hat[j]), "effective": float(effective[j])}
        first = row("mcmc", reference[:, :half], reference[:, half:], **checks)
        yield first._replace(mean=float(reference.mean()), std=float(reference.std()))
        for method, x in own.items():
            yield row(method, x[:, j], reference)


class Ranks(NamedTuple):
    """The calibration of one method in one parameter."""

    method: str
    parameter: str
    pairs: int
    ranked: int
    p_value: float
    counts: tuple[int, ...]  # of the ranks, in equal bins


def calibrate(preset: Preset, samplers: Mapping[str, Callable], key: Key) -> Iterator[Ranks]:
    """Ranks of theta among draws given its data, over pairs from the joint law."""
    key_pairs, key_draws = jax.random.split(key)
    y, x = simulate(key_pairs, preset.pairs, preset.training.draws)
    size = min(preset.pairs, 100)  # data sets at a time
    parts = [slice(i, i + size) for i in range(0, preset.pairs, size)]
    for method, draw in samplers.items():
        found = [
            ranks(y[part], draw(jax.random.fold_in(key_draws, i), x[part], preset.ranked))
            for i, part in enumerate(parts)
        ]
        counts = rank_counts(np.concatenate(found), preset.ranked, preset.bins)
        p = uniformity(counts)
        for j, name in enumerate(NAMES):
            count = tuple(int(c) for c in counts[j])
            yield Ranks(method, name, preset.pairs, preset.ranked, float(p[j]), count)


LEVEL = 0.01  # the significance of a method's calibration, shared by its four parameters
CLOSE = 0.25  # the most that means, in standard deviations, and widths, relative, may be off


def verdicts(rows: Sequence[Row], calibration: Sequence[Ranks]) -> list[str]:
    """One line a claim, and the figures that it rests on."""
    chains = [r for r in rows if r.method == "mcmc"]
    r_hat, effective = max(r.r_hat for r in chains), min(r.effective for r in chains)
    noise = max(r.ks for r in chains)
    met = verdict.exact((r_hat / 1.05, 400 / effective if effective else float("nan")))
    lines = [
        f"MCMC: split R-hat <= {r_hat:.3f}, effective draws >= {effective:.0f}, half against half"
        f" KS <= {noise:.3f}, converged: {verdict.together(met, high=1)}"
    ]
    for method in dict.fromkeys(r.method for r in calibration):
        own = [r for r in rows if r.method == method]
        ranked = [r for r in calibration if r.method == method]
        p = ", ".join(f"{r.parameter} {r.p_value:.2g}" for r in ranked)
        least = min(r.p_value for r in ranked) * len(ranked)
        uniform = verdict.judge(verdict.exact([least])[0], low=LEVEL)
        lines.append(
            f"{method}, ranks over {ranked[0].pairs} data sets: chi-square p = {p} (level"
            f" {LEVEL:g} for all four), uniform: {uniform}"
        )
        shifts, ratio = np.array([r.shift for r in own]), [r.ratio for r in own]
        # MCMC's own means are off by its half-against-half shifts, some two of them at 95 %.
        off = 2 * max(abs(c.shift) for c in chains)
        near = [verdict.about(abs(s) / CLOSE, off / CLOSE) for s in shifts]
        near += verdict.exact(abs(np.log(r)) / np.log(1 + CLOSE) for r in ratio)
        wider = np.exp(np.mean(np.log(ratio)))
        lines.append(
            f"{method} against MCMC, {len({r.data for r in own})} data sets: means off by"
            f" {np.sqrt(np.mean(shifts**2)):.2f} standard deviations (at most"
            f" {np.abs(shifts).max():.2f}), deviations {wider:.2f} of MCMC's ({min(ratio):.2f} to"
            f" {max(ratio):.2f}), KS at most {max(r.ks for r in own):.3f}, close:"
            f" {verdict.together(near, high=1)}"
        )
        lines += [
            f"    data {r.data}, {r.parameter}: {r.mean:.3f} +- {r.std:.3f}, MCMC {c.mean:.3f} +-"
            f" {c.std:.3f}: shift {r.shift:+.2f}, W1 {r.wasserstein:.2f}, KS {r.ks:.3f}"
            for r, c in zip(own, chains, strict=True)
            if r.data == 0
        ]
    return lines


# -- the page -----------------------------------------------------------------------------------

COLOURS = {"mcmc": "#b8b8b8", "gaussian": "#d55e00", "diffusion": "#0072b2"}
LABELS = {"mcmc": "MCMC, exact likelihood", "gaussian": "Gaussian stage", "diffusion": "diffusion"}


def figure(theta: Mapping[str, np.ndarray], calibration: Sequence[Ranks], path: Path) -> None:
    """Marginals [m, 4] of every method with the truth, over the ranks: PNG and PDF."""
    with page.figure(path, 2, 4, (11, 4.8)) as (fig, axes):
        for j, name in enumerate(NAMES):
            _marginal(axes[0, j], {m: x[:, j] for m, x in theta.items()}, TRUTH[j], name)
            _ranks(axes[1, j], [r for r in calibration if r.parameter == name])
        axes[0, 0].set_ylabel("posterior density")
        axes[1, 0].set_ylabel("data sets")
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)


def _marginal(ax, draws, truth, name):
    reference = draws["mcmc"]
    mean, std = reference.mean(), reference.std()
    wide = np.concatenate([np.quantile(x, [0.002, 0.998]) for x in draws.values()])
    low, high = max(wide.min(), mean - 8 * std), min(wide.max(), mean + 8 * std)
    bins = np.linspace(low, high, 46)
    for method, x in draws.items():
        own = {"histtype": "stepfilled" if method == "mcmc" else "step", "label": LABELS[method]}
        weights = np.full(len(x), 1 / len(x) / (bins[1] - bins[0]))
        ax.hist(x, bins, weights=weights, color=COLOURS[method], lw=1.2, **own)
    ax.axvline(truth, color="black", ls="--", lw=1, label="truth")
    ax.set(xlabel=f"${name}$", xlim=(low, high), yticks=[])


def _ranks(ax, ranked):
    bins, first = len(ranked[0].counts), ranked[0]
    low, high = band(first.pairs, bins)
    ax.axhspan(low, high, color="#e6e6e6", lw=0)
    ax.axhline(first.pairs / bins, color="grey", lw=0.8)
    edges = np.linspace(0, first.ranked, bins + 1)
    for r in ranked:
        ax.stairs(r.counts, edges, color=COLOURS[r.method], lw=1.2, baseline=None)
    p = {r.method: r.p_value for r in ranked}["diffusion"]
    top = max(high, *(c for r in ranked for c in r.counts))
    ax.set(xlabel=f"rank of ${first.parameter}$", ylim=(0, 1.15 * top))
    ax.annotate(
        f"$p = {p:.2g}$, band 99 %", (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=8
    )


def run(preset: Preset, out: Path) -> list[str]:
    """Trains, measures and writes posterior.csv, ranks.csv, the figure and the verdicts."""
    keys = jax.random.split(jax.random.key(0), 5)
    key_fit, key_data, key_mcmc, key_draw, key_ranks = keys
    trained = fit(preset.training, key_fit)
    samplers = {
        method: sampler(trained, preset.stepper, preset.steps, method)
        for method in ("gaussian", "diffusion")
    }
    x = observed(key_data, preset.data_sets, preset.training.draws)
    chains = exact.posterior(
        key_mcmc, x, preset.ensembles, preset.walkers, preset.burn, preset.chain
    )
    theta = {
        method: np.asarray(exact.to_theta(draw(key_draw, x, preset.posterior_draws)))
        for method, draw in samplers.items()
    }
    rows = [
        row
        for i, chain in enumerate(chains)
        for row in posterior_rows(i, chain, preset.ensembles, {m: t[i] for m, t in theta.items()})
    ]
    calibration = list(calibrate(preset, samplers, key_ranks))
    truth = np.asarray(exact.to_theta(chains[0].x)).reshape(-1, 4)
    return write(rows, calibration, {"mcmc": truth, **{m: t[0] for m, t in theta.items()}}, out)


def write(
    rows: Sequence[Row], calibration: Sequence[Ranks], theta: Mapping[str, np.ndarray], out: Path
) -> list[str]:
    """Writes all that was measured to `out`; the verdicts."""
    page.table(out / "posterior.csv", rows)
    page.table(out / "ranks.csv", calibration)
    figure(theta, calibration, out / "figure")
    lines = verdicts(rows, calibration)
    return page.say(out, lines)


TRAINING = Training(
    draws=250,
    guide_updates=11_000,
    updates=7000,
    batch=128,
    width=256,
    learning_rate=2e-3,
    ema=0.999,
)
DEFAULT = Preset(
    TRAINING,
    stepper="flow",
    steps=8,
    data_sets=3,
    posterior_draws=4000,
    pairs=1000,
    ranked=99,
    bins=20,
    ensembles=4,
    walkers=16,
    burn=400,
    chain=1600,
)
PRESETS = {
    "default": DEFAULT,
    # As many updates and pairs as the paper has, for an accelerator.
    "paper": DEFAULT._replace(
        training=TRAINING._replace(
            guide_updates=500_000,
            updates=2_000_000,
            batch=512,
            width=512,
            learning_rate=3e-4,
            ema=0.9999,
        ),
        steps=32,
        data_sets=8,
        posterior_draws=20_000,
        pairs=5000,
        chain=10_000,
    ),
    "smoke": Preset(
        Training(
            20, guide_updates=300, updates=50, batch=64, width=32, learning_rate=3e-3, ema=0.9
        ),
        stepper="flow",
        steps=2,
        data_sets=1,
        posterior_draws=200,
        pairs=100,
        ranked=19,
        bins=5,
        ensembles=2,
        walkers=8,
        burn=40,
        chain=100,
    ),
}


def main() -> None:
    """The command line of `run`."""
    page.command("g_and_k", run, PRESETS, __doc__)


if __name__ == "__main__":
    main()
