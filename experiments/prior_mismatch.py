"""What a trained autoencoder pays for its codes, and what a prior that fits them gives back.

The term E_x KL(q(z|x) || p(z)) of the bound is the information I(x; z) of the codes and the
mismatch KL(q(z) || p(z)) of their law, the aggregated posterior, with the prior
(`gmjax.metrics.prior`). Only the mismatch is wasted: samples come from where the prior has mass,
and the decoder has seen codes only where the aggregate has. So, with the decoder held, a mixture of
Gaussians fitted to codes of training examples should lower the mismatch, and its samples should be
closer to data.

Each of several models, trained with the preset's configuration from its own seed, is measured by

    split      E KL, I and the mismatch, of the training set's own aggregate, and again with the
               example that z came from left out of q(z): as estimates for the law of the data the
               two lean to opposite sides, and of N examples I is at most log N
    held out   E log q(z|x) / p(z) of test examples under either prior: what a code costs there.
               With the mixture r, KL(q || p) - KL(q || r) is what it saves, so whatever is saved
               bounds the mismatch of the law of the data from below
    samples    the figures of the ordinary report, decoded from N(0, I), from the mixture and from
               q(z) itself, which is as good as a prior can be; and the floor, training data

Errors are standard errors over models, each a mean over sets of samples; differences are paired by
model and judged by the one-sided t test at 5 %.

Run `python -m experiments.prior_mismatch [--preset default|paper|smoke] [--out DIR]`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from rich.progress import track

from configs import vae as jobs
from experiments import page, verdict
from gmjax import data, methods
from gmjax.classical import gmm
from gmjax.losses import variational
from gmjax.methods import vae
from gmjax.metrics import plots, prior, report
from gmjax.metrics.bits import mean_and_error
from gmjax.metrics.features import fit_classifier
from gmjax.types import Array, Dataset, Key, PyTree

SOURCES = ("N(0, I)", "mixture", "q(z)")
# figure -> its distance to what is best; of `report.ROWS`
FIGURES = {
    "pixel_frechet": lambda v: v,
    "feature_frechet": lambda v: v,
    "nn_accuracy": lambda v: abs(v - 0.5),
    "label_tv": lambda v: v,
    "confident_share": lambda v: 1 - v,
}
LEVEL = 0.05
SAME = 0.05  # a mean of draws is its closed form to this share
OUT = ", own example left out"


class Preset(NamedTuple):
    """How much to run."""

    config: str = "digits"  # of configs/vae.py
    steps: int = 3000
    models: int = 4
    components: int = 10
    restarts: int = 3
    samples: int = 1437  # a set, as many as the digits' training data
    sets: int = 4
    draws: int = 8  # codes an example, in the split
    limit: int = 0  # examples whose codes are drawn; 0: all
    examples: int = 10_000  # of a split, at most


PRESETS = {
    "default": Preset(),
    "paper": Preset("mnist", steps=18_000, samples=10_000, draws=1, limit=2000),
    "smoke": Preset("smoke", 30, 2, 3, 1, 100, 2, 1, 50, 300),
}


class Row(NamedTuple):
    """One measurement of one model."""

    kind: str  # split, held_out or samples
    model: int
    source: str  # of codes, or which prior
    name: str
    value: float
    error: float  # over examples, or over sets


class Model(NamedTuple):
    """A trained model and what was seen of the data."""

    model: vae.Model
    params: PyTree
    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]


def train(config: Any, dataset: Dataset, key: Key) -> PyTree:
    """The averaged parameters after `train.steps` updates on random batches, one program."""
    method = methods.build(config, dataset.spec)
    x = jnp.asarray(dataset.train.take(np.arange(dataset.train.size))["x"])

    @jax.jit
    def run(key, x):
        begin, following = jax.random.split(key)

        def step(state, key):
            pick, use = jax.random.split(key)
            rows = jax.random.randint(pick, (config.train.batch_size,), 0, len(x))
            return method.update(state, use, {"x": x[rows]})[0], None

        keys = jax.random.split(following, config.train.steps)
        return jax.lax.scan(step, method.init(begin), keys)[0].ema

    return run(key, x)


def aggregate(of: Model, key: Key, x: np.ndarray) -> variational.Gaussian:
    """q(z | x) of examples [n, *S]."""
    return jax.jit(lambda p, k, x: of.model.encode(p, of.model.read(k, x)))(of.params, key, x)


def mixture(key: Key, q: variational.Gaussian, preset: Preset) -> gmm.Params:
    """Fitted to one code an example."""
    key_code, key_fit = jax.random.split(key)
    z = variational.draw(q, jax.random.normal(key_code, q.mean.shape))
    return gmm.fit(key_fit, z, preset.components, "full", restarts=preset.restarts).params


def splits(i: int, key: Key, q, held, fitted: gmm.Params, preset: Preset) -> list[Row]:
    """The parts of E KL of the training set, and what codes of test examples cost."""
    priors = {SOURCES[0]: None, SOURCES[1]: lambda z: gmm.log_likelihood(fitted, z, "full")}
    rows = []
    for source, law in priors.items():
        for own in (True, False):
            found = prior.split(key, q.mean, q.log_std, law, preset.draws, own, preset.limit)
            end = "" if own else OUT
            for name, value in found._asdict().items():
                rows.append(Row("split", i, source, name + end, *value))
        cost = prior.split(key, held.mean, held.log_std, law, preset.draws, True, preset.limit).kl
        rows.append(Row("held_out", i, source, "kl", *cost))
    exact = mean_and_error(np.asarray(variational.kl(q).sum(-1))[: preset.limit or None])
    return [*rows, Row("split", i, SOURCES[0], "kl, closed form", *exact)]


def decoded(of: Model, key: Key, source: str, q, fitted: gmm.Params, n: int) -> Array:
    """n draws of x, their codes drawn from `source`."""
    key_pick, key_code, key_x = jax.random.split(key, 3)
    noise = jax.random.normal(key_code, (n, of.model.latent))

    def from_aggregate():
        rows = jax.random.randint(key_pick, (n,), 0, len(q.mean))
        return variational.draw(jax.tree.map(lambda a: a[rows], q), noise)

    codes = {
        SOURCES[0]: lambda: noise,
        SOURCES[1]: lambda: gmm.sample(key_code, fitted, n, "full"),
        SOURCES[2]: from_aggregate,
    }
    raw = jax.jit(of.model.decode)(of.params, codes[source]())
    return of.model.write(of.model.law.sample(key_x, raw))


def measure(
    i: int, of: Model, judge: report.Judge, key: Key, preset: Preset
) -> tuple[list[Row], dict[str, np.ndarray]]:
    """All rows of a model, and what the figure shows of it: samples and codes by source."""
    key_q, key_fit, key_split, key_x = jax.random.split(key, 4)
    q, held = (aggregate(of, key_q, part["x"]) for part in (of.train, of.test))
    fitted = mixture(key_fit, q, preset)
    rows, shown = splits(i, key_split, q, held, fitted, preset), {}
    for source in SOURCES:
        found: dict[str, list[float]] = {}
        for k in range(preset.sets):
            x = decoded(of, jax.random.fold_in(key_x, k), source, q, fitted, preset.samples)
            shown[source] = np.asarray(x)
            for name, value in judge(shown[source], None).items():
                found.setdefault(name, []).append(value)
        rows += [
            Row("samples", i, source, name, *mean_and_error(np.asarray(found[name])))
            for name in FIGURES
        ]
    n = len(q.mean)
    shown["codes"] = np.asarray(variational.draw(q, jax.random.normal(key_q, q.mean.shape)))
    shown["codes N(0, I)"] = np.asarray(jax.random.normal(key_fit, q.mean.shape))
    shown["codes mixture"] = np.asarray(gmm.sample(key_fit, fitted, n, "full"))
    return rows, shown


def values(rows: Sequence[Row], kind: str, source: str, name: str) -> np.ndarray:
    """Of every model."""
    return np.array([r.value for r in rows if (r.kind, r.source, r.name) == (kind, source, name)])


def test(differences: np.ndarray) -> str:
    """Is the mean of independent differences positive? A one-sided t test, both ways."""
    mean, error = mean_and_error(differences)
    least = scipy.stats.t.ppf(1 - LEVEL, len(differences) - 1) * error
    return verdict.judge(verdict.about(float(mean), float(least)), low=0)


def verdicts(rows: Sequence[Row]) -> list[str]:
    """One line a claim."""
    form = lambda v: "{:.3f} +- {:.3f}".format(*mean_and_error(v))
    normal, fitted, whole = SOURCES
    kl, exact = (values(rows, "split", normal, name) for name in ("kl", "kl, closed form"))
    # Both are means over the same examples, so that only their difference has the draws' noise.
    off, error = mean_and_error(kl / exact - 1)
    half = scipy.stats.t.ppf(0.975, len(kl) - 1) * error
    agree = verdict.judge(verdict.about(float(off), float(half)), -SAME, SAME)
    lines = [f"E KL {form(kl)} nats, drawn, is the closed form {form(exact)}: {agree}"]
    for end in ("", OUT):
        part = {n: values(rows, "split", normal, n + end) for n in ("information", "mismatch")}
        shown = f"information {form(part['information'])}, mismatch {form(part['mismatch'])}"
        above = f": above zero {test(part['mismatch'])}" if not end else ""
        lines.append(f"of the training set's aggregate{end}: {shown}{above}")
    for kind, name, what in (
        ("split", "mismatch", "mismatch of the training set's aggregate"),
        ("held_out", "kl", "cost of a held-out code (the gain bounds the data's mismatch below)"),
    ):
        before, after = (values(rows, kind, source, name) for source in (normal, fitted))
        lines.append(
            f"the mixture lowers the {what}, {form(before)} to {form(after)} nats, by"
            f" {form(before - after)}: {test(before - after)}"
        )
    for name, distance in FIGURES.items():
        by = {source: values(rows, "samples", source, name) for source in SOURCES}
        far = {source: np.array([distance(v) for v in found]) for source, found in by.items()}
        shown = ", ".join(f"{source} {form(found)}" for source, found in by.items())
        label = report.ROWS[name].label
        lines.append(
            f"{label}: {shown}; mixture better than {normal}: {test(far[normal] - far[fitted])},"
            f" {whole} better than the mixture: {test(far[fitted] - far[whole])}"
        )
    return lines


def figure(rows: Sequence[Row], shown: dict[str, np.ndarray], spec: Any, path: Path) -> None:
    """The split, the figures by source, codes, and samples of the last model: PNG and PDF."""
    fig, axes = plots.canvas(12.0, 7.6, 2, 3)
    normal, fitted, whole = SOURCES
    paint = dict(zip(SOURCES, plots.ACCENTS, strict=False))
    ax = axes[0, 0]
    for i, source in enumerate((normal, fitted)):
        parts = [values(rows, "split", source, name) for name in ("information", "mismatch")]
        low, high = (mean_and_error(part) for part in parts)
        ax.bar(i, low[0], color="#bdbbb3")
        ax.text(i, low[0] / 2, f"information\n{low[0]:.2f}", ha="center", va="center")
        ax.bar(i, high[0], 0.8, low[0], color=paint[source], yerr=high[1], capsize=4)
        at = low[0] + high[0] / 2
        ax.text(i, at, f"mismatch\n{high[0]:.2f}", ha="center", va="center", color="w")
    ax.set_xticks([0, 1], [f"prior {normal}", "prior: mixture"])
    ax.set_ylabel("E KL(q(z|x) || prior), nats")
    ax = axes[0, 1]
    for k, source in enumerate(SOURCES):
        for j, (name, distance) in enumerate(FIGURES.items()):
            far = lambda s, n=name, d=distance: [d(v) for v in values(rows, "samples", s, n)]
            unit = np.mean(far(normal)) or 1.0
            mean, error = mean_and_error(np.asarray(far(source)) / unit)
            ax.bar(
                j + 0.27 * (k - 1), mean, 0.25, color=paint[source], yerr=error, capsize=2,
                label=source if j == 0 else None,
            )  # fmt: skip
    ax.set_xticks(range(len(FIGURES)), [n.replace("_", "\n") for n in FIGURES], fontsize=8)
    ax.set_ylabel(f"distance to the best, {normal} = 1")
    ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    ax = axes[0, 2]
    centre = shown["codes"].mean(0)
    across = np.linalg.svd(shown["codes"] - centre, full_matrices=False)[2][:2].T
    for source, name in ((normal, "codes N(0, I)"), (fitted, "codes mixture"), (whole, "codes")):
        at = (report.thin(shown[name], 800) - centre) @ across
        ax.scatter(*at.T, s=4, color=paint[source], alpha=0.6, linewidths=0, label=source)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel("principal components of codes")
    ax.legend(
        frameon=False,
        fontsize=8,
        markerscale=3,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=3,
    )
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
    for ax, source in zip(axes[1], SOURCES, strict=True):
        images = plots.colours(shown[source][:80], spec.num_values)
        ax.imshow(plots.tile(images, 10, 4, 2), interpolation="nearest")
        plots.bare(ax, f"codes from {source}")
    page.save(fig, path)


def experiment(preset: Preset, out: Path) -> list[str]:
    """Measures, then writes rows.csv, figure.png, figure.pdf and verdicts.txt to `out`."""
    config = jobs.get_config(preset.config).unlock()
    config.train.steps = preset.steps
    dataset = data.load(config.data)
    spec = dataset.spec
    seen = []
    for source in (dataset.train, dataset.test):
        few = np.linspace(0, source.size - 1, min(source.size, preset.examples)).astype(int)
        seen.append(source.take(few))
    known, held = seen
    classifier = fit_classifier(known["x"], known["label"], spec.num_values, spec.ordinal)
    judge = report.judge(spec, known["x"], held["x"], held["label"], classifier)
    floor = judge(report.thin(known["x"], preset.samples), None)
    floor["confident_share"] = float(np.mean(classifier.classify(held["x"])[1] > report.CONFIDENT))
    rows = [Row("samples", -1, "floor", name, floor[name], 0.0) for name in FIGURES]
    shown: dict[str, np.ndarray] = {}
    built = vae.model(config, spec)
    for i in track(range(preset.models), "models"):
        key_train, key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), i))
        of = Model(built, train(config, dataset, key_train), known, held)
        own, shown = measure(i, of, judge, key, preset)
        rows += own
    page.table(out / "rows.csv", rows)
    figure(rows, shown, spec, out / "figure")
    lines = verdicts(rows)
    lines.append("floor: " + ", ".join(f"{name} {floor[name]:.3f}" for name in FIGURES))
    return page.say(out, lines)


def main() -> None:
    """The command line of `experiment`."""
    page.command("prior_mismatch", experiment, PRESETS, __doc__)


if __name__ == "__main__":
    main()
