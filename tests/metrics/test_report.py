import io
import json

import numpy as np
import pytest
from rich.console import Console

from gmjax.metrics import baselines
from gmjax.metrics.report import COLUMNS, KINDS, ROWS, judge, rows, sample_report, table
from gmjax.types import DataSpec

DIGITS = DataSpec((8, 8, 1), 17, "image", ordinal=True, num_classes=10)


@pytest.fixture(scope="module")
def report(digits):
    model = baselines.mixture(digits.train, digits.train_label, 17)
    samples = model.sample(np.random.default_rng(2), 1024)
    return sample_report(
        samples,
        digits.train,
        digits.test,
        DIGITS,
        train_label=digits.train_label,
        test_label=digits.test_label,
        sample_label=np.zeros(1024, int),
    )


def text(report, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(report))
    return console.export_text()


def test_samples_of_the_ceiling_score_as_the_ceiling(report):
    # Two independent draws of 1024 from one model: every figure agrees to a few percent of the
    # gap between floor and ceiling.
    for key in ("pixel_frechet", "feature_frechet", "nn_accuracy", "confident_share"):
        gap = abs(report["independent/" + key] - report["floor/" + key])
        assert abs(report[key] - report["class/" + key]) < 0.12 * gap, key


def test_floor_and_ceilings_are_in_their_places(report):
    # The split is not the pilot's: wide brackets around 1.06, .136, .49; 17.7, 1.80, .79, 2.43;
    # 1.28, .64, .71, 2.23.
    inside = {
        "floor/feature_frechet": (0.5, 3.0),
        "floor/pixel_frechet": (0.09, 0.18),
        "floor/nn_accuracy": (0.45, 0.54),
        "floor/confident_share": (0.92, 0.98),
        "independent/feature_frechet": (10, 50),
        "independent/pixel_frechet": (1.6, 2.0),
        "independent/nn_accuracy": (0.74, 0.84),
        "independent/bits_per_dim": (2.39, 2.46),
        "class/feature_frechet": (1.0, 5.0),
        "class/pixel_frechet": (0.55, 0.8),
        "class/nn_accuracy": (0.64, 0.75),
        "class/bits_per_dim": (2.19, 2.25),
    }
    for key, (low, high) in inside.items():
        assert low < report[key] < high, (key, report[key])


def test_the_floor_is_all_memorised_and_the_ceilings_are_not(report):
    assert report["floor/memorised_share"] == 1.0
    assert report["floor/nn_ratio"] < 0.85
    for column in ("", "independent/", "class/"):
        assert report[column + "memorised_share"] == 0.0
        assert 0.95 < report[column + "nn_ratio"] < 1.05


def test_label_figures_by_hand(digits, classifier):
    figures = judge(DIGITS, digits.train, digits.test, digits.test_label, classifier)
    guess, confidence = classifier.classify(digits.test)
    zeros = digits.test[guess == 0]
    found = figures(zeros, np.zeros(len(zeros), int))
    assert found["label_match"] == 1.0
    assert found["label_tv"] == pytest.approx(1 - np.mean(digits.test_label == 0))
    assert found["confident_share"] == pytest.approx(np.mean(confidence[guess == 0] > 0.9))
    # A label that the reference lacks is all difference.
    other = digits.test_label != 0
    few = judge(DIGITS, digits.train, digits.test[other], digits.test_label[other], classifier)
    assert few(zeros)["label_tv"] == pytest.approx(1.0)


def test_pixels_are_scaled_to_the_unit_interval(digits):
    ones = np.ones((5, 8, 8, 1), int)
    spec = DataSpec((8, 8, 1), 17, "vector", ordinal=True)
    found = judge(spec, 16 * ones, 16 * ones)(0 * ones)
    assert found["pixel_frechet"] == pytest.approx(64.0)


def test_report_is_flat_json_and_its_table_reads(report):
    assert all(isinstance(v, float) for v in report.values())
    assert json.loads(json.dumps(report)) == report
    full = report | {
        "bits_per_dim": 1.7801,
        "bits_per_dim_error": 0.0123,
        "nfe": 50.0,
        "sample_seconds": 4.21,
        "unknown": 1.0,
    }
    shown = text(full)
    assert "1.780 ±0.012" in shown
    assert "unknown" not in shown
    for name in COLUMNS.values():
        assert name in shown
    for key in ("pixel_frechet", "feature_frechet", "label_match", "nfe", "memorised_share"):
        assert ROWS[key].label in shown  # and none is broken over two lines
    assert all(len(cells) == len(COLUMNS) + 2 for cells in rows(full))


def test_without_labels_the_rows_that_need_them_are_absent(digits):
    found = sample_report(digits.test[:100], digits.train, digits.test, DIGITS)
    assert not any("label" in k or "confident" in k or "feature" in k for k in found)
    assert not any(k.startswith("class/") for k in found)
    shown = text(found)
    assert ROWS["nn_accuracy"].label in shown
    assert ROWS["label_tv"].label not in shown
    assert COLUMNS["class/"] not in shown


def test_sequences_have_token_figures():
    # Sticky chains: independent sites keep the unigrams and lose the bigrams.
    rng = np.random.default_rng(3)
    steps = rng.choice([-1, 0, 0, 0, 1], (600, 40))
    x = (rng.integers(0, 6, (600, 1)) + steps.cumsum(1)) % 6
    spec = DataSpec((40,), 6, "sequence")
    found = sample_report(x[400:], x[:200], x[200:400], spec, truth=x[400:])
    assert "pixel_frechet" not in found
    assert found["paired_outliers"] == 0.0
    assert found["paired_hellinger"] == pytest.approx(0.0, abs=1e-12)
    assert found["independent/unigram_hellinger"] < 0.05
    assert found["independent/bigram_hellinger"] > 0.3 > 0.1 > found["bigram_hellinger"]
    assert found["outlier_share"] == 0.0
    assert found["independent/outlier_share"] > 0.3
    shown = text(found)
    for key in ("bigram_hellinger", "outlier_share", "paired_outliers", "nn_ratio"):
        assert ROWS[key].label in shown


def test_vectors_have_the_joint_law():
    rng = np.random.default_rng(4)
    a = rng.integers(0, 8, (3000, 1))
    x = np.concatenate([a, (a + rng.integers(0, 2, a.shape)) % 8], 1)
    found = sample_report(x[:1000], x[1000:2000], x[2000:], DataSpec((2,), 8, ordinal=True))
    assert found["joint_hellinger"] < 0.1 < 0.5 < found["independent/joint_hellinger"]
    assert "memorised_share" not in found


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_refuses_what_is_no_sample(kind):
    x = np.arange(12).reshape(4, 3) % 5
    figures = judge(DataSpec((3,), 5, kind, ordinal=True), x, x)
    assert figures(x)
    with pytest.raises(ValueError, match=r"0 \.\. 4"):
        figures(x + 1)
    with pytest.raises(ValueError, match="shape"):
        figures(x[:, :2])
