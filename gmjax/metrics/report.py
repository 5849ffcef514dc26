"""The report of a run: every figure beside the same figure for data and for trivial models.

A figure alone says little: a class-conditional model with independent pixels matches trained
networks in feature Frechet distance and in classifier confidence. So each is computed four times
with the same code and the same number of samples,

    this run | floor: training data as samples | independent | independent given the class,

and judged against held-out data. Training data as samples are as good as samples can look, and
all memorised: the floor's copies and neighbour ratio show what memorising scores. Two exceptions:
the floor of the confidence comes from held-out data, because the classifier knows the training
data; models, not data, have bits per dimension.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from gmjax.metrics import baselines, histograms, two_sample
from gmjax.metrics.bits import bits_per_dim, mean_and_error
from gmjax.metrics.features import Classifier, fit_classifier
from gmjax.metrics.frechet import frechet_distance, gaussian_frechet, moments
from gmjax.types import DataSpec

Figures = dict[str, float]
Judge = Callable[..., Figures]  # (x [n, *S], label [n] | None) -> figures

CONFIDENT = 0.9
NEIGHBOURS = 2000  # points of each set in the quadratic two-sample test


def thin(x: np.ndarray, size: int) -> np.ndarray:
    """At most `size` rows of x, chosen by a fixed random order."""
    return x[np.random.default_rng(0).permutation(len(x))[:size]] if len(x) > size else x


def _pixels(spec: DataSpec, train: np.ndarray, test: np.ndarray) -> Judge:
    scale = 1.0 / (spec.num_values - 1)
    real = moments(test * scale)
    return lambda x, label: {"pixel_frechet": gaussian_frechet(*moments(x * scale), *real)}


def _accuracies(x: np.ndarray, test: np.ndarray, metric: str) -> Figures:
    on_samples, on_data = two_sample.nn_accuracies(x, thin(test, NEIGHBOURS), metric)
    return {
        "nn_accuracy": 0.5 * (on_samples + on_data),
        "nn_accuracy_samples": on_samples,
        "nn_accuracy_data": on_data,
    }


def _neighbours(spec: DataSpec, train: np.ndarray, test: np.ndarray) -> Judge:
    metric = "euclidean" if spec.ordinal else "hamming"

    def figures(x, label):
        few = thin(x, NEIGHBOURS)
        return _accuracies(few, test, metric) | {
            "nn_ratio": two_sample.nn_ratio(few, train, test, metric),
            "memorised_share": two_sample.memorised_share(x, train),
        }

    return figures


def _tokens(spec: DataSpec, train: np.ndarray, test: np.ndarray) -> Judge:
    s = spec.num_values
    return lambda x, label: {
        "unigram_hellinger": histograms.ngram_hellinger(x, test, 1, s),
        "bigram_hellinger": histograms.ngram_hellinger(x, test, 2, s),
        "outlier_share": histograms.outlier_share(x, test, 2, s),
    }


def _joint(spec: DataSpec, train: np.ndarray, test: np.ndarray) -> Judge:
    metric = "euclidean" if spec.ordinal else "hamming"
    return lambda x, label: {
        "joint_hellinger": histograms.joint_hellinger(x, test, spec.num_values),
        "nn_accuracy": two_sample.nn_accuracy(thin(x, NEIGHBOURS), thin(test, NEIGHBOURS), metric),
    }


# DataSpec.kind -> what is measured. A few vectors of few values are all "memorised": not asked.
KINDS: dict[str, tuple[Callable[..., Judge], ...]] = {
    "image": (_pixels, _neighbours),
    "sequence": (_tokens, _neighbours),
    "vector": (_pixels, _joint),
}


def _classes(classifier: Classifier, test: np.ndarray, test_label: np.ndarray) -> Judge:
    real = classifier.features(test)

    def figures(x, label):
        guess, confidence = classifier.classify(x)
        found = {
            "feature_frechet": frechet_distance(classifier.features(x), real),
            "confident_share": float(np.mean(confidence > CONFIDENT)),
            "label_tv": histograms.total_variation(
                *histograms.histogram_pair(guess, np.asarray(test_label))
            ),
        }
        asked = {} if label is None else {"label_match": float(np.mean(guess == label))}
        return found | asked

    return figures


def judge(
    spec: DataSpec,
    train: np.ndarray,
    test: np.ndarray,
    test_label: np.ndarray | None = None,
    classifier: Classifier | None = None,
) -> Judge:
    """The figures of one set of samples, as a function of the samples.

    Args:
        spec: what the data look like; `kind` chooses the figures, `ordinal` the metric.
        train: [m, *S] integers in 0 .. S - 1, what the model saw.
        test: [k, *S], what it did not: the reference.
        test_label: [k] integers; with `classifier`, adds the figures that need labels.
        classifier: fitted on the training data.

    Returns:
        (x [n, *S], label [n] | None = None) -> {name: value}. `label` is what a conditional
        sampler was asked for, and adds `label_match`.

    Raises:
        ValueError: (from the returned function) samples of a wrong shape or outside 0 .. S - 1.
    """
    parts = [build(spec, train, test) for build in KINDS[spec.kind]]
    if classifier is not None and test_label is not None:
        parts.append(_classes(classifier, test, test_label))

    def figures(x: np.ndarray, label: np.ndarray | None = None) -> Figures:
        if x.shape[1:] != test.shape[1:]:
            raise ValueError(f"samples have shape {x.shape[1:]}, the data {test.shape[1:]}")
        if x.min() < 0 or x.max() >= spec.num_values:
            raise ValueError(f"sample values must lie in 0 .. {spec.num_values - 1}")
        return {k: v for part in parts for k, v in part(x, label).items()}

    return figures


def sample_report(
    samples: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    spec: DataSpec,
    *,
    train_label: np.ndarray | None = None,
    test_label: np.ndarray | None = None,
    sample_label: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    seed: int = 0,
) -> Figures:
    """Every figure for the samples, the floor and the independent ceilings.

    Args:
        samples: [n, *S] integers in 0 .. S - 1.
        train, test: [m, *S] and [k, *S] integers, the data's splits.
        spec: what the data look like.
        train_label, test_label: [m] and [k] integers; without them the figures that need a
            classifier, and the class-conditional ceiling, are absent.
        sample_label: [n] the labels a conditional sampler was asked for.
        truth: [n, L] the true sequences whose beginnings the samples continue; adds the paired
            token figures.
        seed: of the ceilings' samples.

    Returns:
        {name: value} for the samples, and {column + "/" + name: value} for the columns
        `floor`, `independent` and `class`. Plain floats, ready for JSON.
    """
    samples, train, test = np.asarray(samples), np.asarray(train), np.asarray(test)
    s, rng = spec.num_values, np.random.default_rng(seed)
    models = {"independent": baselines.independent(train, s)}
    classifier = None
    if train_label is not None and test_label is not None:
        train_label = np.asarray(train_label)
        models["class"] = baselines.mixture(train, train_label, s)
        classifier = fit_classifier(train, train_label, s, spec.ordinal)
    figures = judge(spec, train, test, test_label, classifier)

    report = figures(samples, sample_label)
    if truth is not None and spec.kind == "sequence":
        truth = np.asarray(truth)
        report["paired_hellinger"] = histograms.paired(
            histograms.ngram_hellinger, samples, truth, 1, s
        )
        report["paired_outliers"] = histograms.paired(
            histograms.outlier_share, samples, truth, 1, s
        )
    floor = figures(thin(train, len(samples)))
    if classifier is not None:
        floor["confident_share"] = float(np.mean(classifier.classify(test)[1] > CONFIDENT))
    columns = {"floor": floor}
    for name, model in models.items():
        bits, error = mean_and_error(bits_per_dim(-model.log_prob(test), test[0].size))
        columns[name] = figures(model.sample(rng, len(samples))) | {
            "bits_per_dim": bits,
            "bits_per_dim_error": error,
        }
    return report | {f"{c}/{k}": v for c, part in columns.items() for k, v in part.items()}


class Row(NamedTuple):
    """How a figure is shown."""

    label: str
    form: str  # format specification
    best: str  # what a good model tends to


PARTS = ("prior", "diffusion", "jumps", "reconstruction", "entropy")  # of a bound
ROWS: dict[str, Row] = {
    "bits_per_dim": Row("bits per dimension, held out", ".3f", "low"),
    **{f"bits_{part}": Row(f"  of them {part}", ".4f", "") for part in PARTS},
    "nll": Row("negative log-likelihood, nats, held out", ".3f", "low"),
    "elbo": Row("upper bound on it, -ELBO, nats", ".3f", "low"),
    **{f"nats_{part}": Row(f"  of it {part}", ".4f", "") for part in PARTS},
    "kernel_nll": Row("negative log-likelihood, kernel density", ".3f", ""),
    "test_loss": Row("training loss, held out", ".4f", "low"),
    "ess": Row("effective sample size of the likelihood", ".1f", "high"),
    "mse": Row("squared error, reconstructed", ".5f", "low"),
    "pixel_frechet": Row("Frechet distance, pixels", ".3f", "floor"),
    "feature_frechet": Row("Frechet distance, features", ".2f", "floor"),
    "energy": Row("energy distance, relative", ".4f", "floor"),
    "energy_parts": Row("  of the parts alone, mean", ".4f", "floor"),
    "sliced": Row("sliced Wasserstein distance", ".4f", "floor"),
    "class_tv": Row("total variation of the classes", ".3f", "floor"),
    "nn_accuracy": Row("two-sample accuracy, 1-NN", ".3f", "0.5"),
    "nn_accuracy_samples": Row("  on the samples", ".3f", "0.5"),
    "nn_accuracy_data": Row("  on the held-out data", ".3f", "0.5"),
    "joint_hellinger": Row("Hellinger distance, joint law", ".3f", "floor"),
    "unigram_hellinger": Row("Hellinger distance, tokens", ".3f", "floor"),
    "bigram_hellinger": Row("Hellinger distance, bigrams", ".3f", "floor"),
    "outlier_share": Row("bigrams unseen in held-out data", ".1%", "floor"),
    "paired_hellinger": Row("Hellinger distance to the truth", ".3f", "low"),
    "paired_outliers": Row("tokens not in the truth", ".1%", "low"),
    "confident_share": Row("recognised, confidence > 0.9", ".1%", "floor"),
    "label_tv": Row("label total variation", ".3f", "0"),
    "label_match": Row("recognised as what was asked", ".1%", "100%"),
    "nn_ratio": Row("train / test neighbour ratio", ".3f", "1"),
    "memorised_share": Row("identical to training data", ".1%", "0%"),
    "broken_share": Row("samples that are not finite", ".1%", "0%"),
    "nfe": Row("network evaluations", ".0f", ""),
    "sample_seconds": Row("seconds to sample", ".1f", ""),
}

COLUMNS: dict[str, str] = {
    "": "this run",
    "floor/": "floor",
    "independent/": "indep.",
    "class/": "given class",
}


def _cell(report: Figures, key: str, form: str) -> str:
    if key not in report:
        return ""
    # Shown for this run; for the ceilings it is noise, and one example has none.
    error = np.nan if "/" in key else report.get(key + "_error", np.nan)
    return format(report[key], form) + ("" if np.isnan(error) else f" ±{error:{form}}")


def rows(report: Figures) -> Iterator[list[str]]:
    """The table's cells: a label, a value a column that has any, and what is best."""
    for key, row in ROWS.items():
        cells = [_cell(report, c + key, row.form) for c in present(report)]
        if any(cells):
            yield [row.label, *cells, row.best]


def present(report: Figures) -> list[str]:
    """The prefixes of the columns that the report has."""
    return [c for c in COLUMNS if any(k.startswith(c) and "/" in k or not c for k in report)]


def table(report: Figures, title: str = "Samples against held-out data") -> Table:
    """A short table that a person reads; `rich.print` it.

    Args:
        report: from `sample_report`; further keys of `ROWS` (such as `bits_per_dim` and
            `bits_per_dim_error`, `nfe`, `sample_seconds`) may be added, unknown ones are ignored.
        title: above the table.

    Returns:
        A rich table: a row a figure, a column each for this run, the floor and the ceilings.
    """
    out = Table(
        title=title,
        caption="floor: training data as samples; indep.: independent or uniform values",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    cells = list(rows(report))
    out.add_column("", no_wrap=True, min_width=max((len(row[0]) for row in cells), default=0))
    for name in present(report):
        out.add_column(COLUMNS[name], justify="right", style="" if name else "bold")
    out.add_column("best", justify="right", style="dim")
    for row in cells:
        out.add_row(*row)
    return out
