"""A law on the triangle: Wright-Fisher diffusion against the softmax of a diffusion of R^2.

The data are a mixture of four Dirichlet laws with a known density (`gmjax.data.dirichlet`). Two
models learn them with the same network, updates and batches (Benton et al. 2022, section 6):

    wright_fisher   noise that stays on the simplex and ends at Dirichlet(2, 2, 2)
    softmax         additive log-ratios log(x_i / x_3), standardised, noised by the
                    variance-preserving diffusion of R^2 and mapped back by a softmax

Samples are compared with fresh draws by the energy distance and by the mean of the true log
density, both beside what as many true draws have: the floor. One row a model and seed.

Run `python -m experiments.dirichlet_mixture`.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from experiments import page, verdict
from gmjax.data.dirichlet import dirichlet_log_density, dirichlet_sample
from gmjax.losses import scores, times
from gmjax.methods.combinators import from_loss, optimizer
from gmjax.networks.field import Field
from gmjax.processes import gaussian, schedules
from gmjax.processes.schedules import Schedule
from gmjax.processes.wright_fisher import wright_fisher
from gmjax.samplers import driver, grids, markov
from gmjax.types import Array, Key, Process


class Model(NamedTuple):
    """A noising process, and the chart of the triangle it lives in."""

    process: Process
    schedule: Schedule
    t_min: float
    to: Callable[[Array], Array]  # x [n, 3] -> states
    back: Callable[[Array], Array]


class Preset(NamedTuple):
    """How much to run."""

    updates: int
    steps: int  # of the reverse process
    draws: int  # of every model and of the floor
    floors: int  # sets of true draws
    seeds: int
    batch: int = 512
    width: int = 128
    truth: int = 20_000  # draws that all are compared with
    data: int = 100_000


PRESETS = {
    "default": Preset(updates=3000, steps=200, draws=5000, floors=20, seeds=2),
    "paper": Preset(50_000, 1000, 20_000, 50, 5, width=512),
    "smoke": Preset(60, 10, 300, 3, 1, batch=64, width=16, truth=1000, data=5000),
}


def models(x: np.ndarray) -> dict[str, Model]:
    """The two models, the charts fitted to data x [n, 3]."""
    own, flat = schedules.linear(0.02, 4.0), schedules.linear(0.1, 20.0)
    ratios = np.log(x[:, :2] / x[:, 2:])
    mean, std = jnp.asarray(ratios.mean(0)), jnp.asarray(ratios.std(0))

    def softmax(z: Array) -> Array:
        full = jnp.concatenate([mean + std * z, jnp.zeros_like(z[:, :1])], -1)
        return jax.nn.softmax(full, -1)

    return {
        "wright_fisher": Model(wright_fisher(own, (3,), 2.0), own, 5e-3, lambda x: x, lambda x: x),
        "softmax": Model(
            gaussian.vp(flat, (2,)),
            flat,
            1e-3,
            lambda x: (jnp.log(x[:, :2] / x[:, 2:]) - mean) / std,
            softmax,
        ),
    }


def fit_and_draw(model: Model, x: np.ndarray, preset: Preset, key: Key) -> np.ndarray:
    """Train on x [n, 3] and draw: [draws, 3]."""
    process, data = model.process, model.to(jnp.asarray(x))
    size = data.shape[-1]
    net = Field(size, 0, preset.width, 2, 2, 32, 1.0, 0.0, "float32")
    embed = jax.vmap(process.space.embed)
    predict = lambda params: lambda x, t, cond: jnp.asarray(net.apply(params, embed(x), t))
    loss = scores.denoising(process, times.uniform_in_t(model.t_min))
    rule = {"name": "adamw", "learning_rate": 2e-3, "warmup": preset.updates // 20}
    rule |= {"decay": "cosine", "weight_decay": 0.0, "b2": 0.99, "clip": 1.0}
    start, update = from_loss(
        lambda key: net.init(key, embed(data[:1]), jnp.ones(1)),
        lambda params, key, batch: loss(predict(params), key, batch["x"], None),
        optimizer(rule, preset.updates),
        0.999,
    )
    key_init, key_train, key_base, key_draw = jax.random.split(key, 4)

    def body(state, key):
        key_batch, key_loss = jax.random.split(key)
        rows = jax.random.randint(key_batch, (preset.batch,), 0, len(data))
        return update(state, key_loss, {"x": data[rows]})[0], None

    @jax.jit
    def train(key):
        keys = jax.random.split(key, preset.updates)
        return jax.lax.scan(body, start(key_init), keys)[0].ema

    @jax.jit
    def draw(params, key):
        first = jax.vmap(process.base.sample)(jax.random.split(key_base, preset.draws))
        grid = grids.clock(preset.steps, model.t_min, model.schedule)
        out = driver.reverse(markov.walk(process), predict(params), key, first, grid)
        return model.back(out.x)

    return np.asarray(draw(train(key_train), key_draw))


# -- measurement --------------------------------------------------------------------------------


class Row(NamedTuple):
    """One set of draws against the truth."""

    model: str  # wright_fisher, softmax or truth
    seed: int
    energy: float  # squared energy distance, unbiased: zero on average for the truth
    log_density: float  # mean of log p, nats
    seconds: float  # training and drawing


def mean_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The mean of |x_i - y_j|."""
    chunks = [np.linalg.norm(part[:, None] - y, axis=-1).sum() for part in np.array_split(x, 50)]
    return float(sum(chunks) / len(x) / len(y))


def energy_distance(x: np.ndarray, y: np.ndarray, within_y: float) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|, the last, between distinct points, given."""
    within = mean_distance(x, x) * len(x) / (len(x) - 1)
    return 2 * mean_distance(x, y) - within - within_y


def log_density(x: np.ndarray) -> float:
    """The mean of log p; a coordinate that rounded to zero counts as 1e-6."""
    return float(dirichlet_log_density(np.maximum(x, 1e-6)).mean())


def measure(preset: Preset) -> tuple[list[Row], dict[str, np.ndarray]]:
    """The rows, and the draws of the first seed and of the truth: [draws, 3] each."""
    x, truth = dirichlet_sample(preset.data, 0), dirichlet_sample(preset.truth, 1)
    within = mean_distance(truth, truth) * len(truth) / (len(truth) - 1)
    row = lambda name, seed, x, seconds: Row(
        name, seed, energy_distance(x, truth, within), log_density(x), seconds
    )
    rows = [
        row("truth", i, dirichlet_sample(preset.draws, 2 + i), 0.0) for i in range(preset.floors)
    ]
    shown = {"truth": truth[: preset.draws]}
    for name, model in models(x).items():
        for seed in range(preset.seeds):
            begin = time.perf_counter()
            drawn = fit_and_draw(model, x, preset, jax.random.key(seed))
            rows.append(row(name, seed, drawn, time.perf_counter() - begin))
            shown.setdefault(name, drawn)
    return rows, shown


def verdicts(rows: Sequence[Row]) -> list[str]:
    """A line a model beside the floor, and which is nearer the truth."""
    floor = [r for r in rows if r.model == "truth"]
    energy = np.array([r.energy for r in floor])
    density = np.array([r.log_density for r in floor])
    lines = [
        f"truth: energy distance {1e4 * energy.mean():.2f} +- {1e4 * energy.std():.2f} (1e-4),"
        f" log density {density.mean():.3f} +- {density.std():.3f}, {len(floor)} sets of draws"
    ]
    score: dict[str, float] = {}
    for name in dict.fromkeys(r.model for r in rows if r.model != "truth"):
        own = [r for r in rows if r.model == name]
        score[name] = float(np.mean([r.energy for r in own]))
        listed = ", ".join(f"{1e4 * r.energy:.2f}" for r in own)
        gap = np.mean([r.log_density for r in own]) - density.mean()
        z = (score[name] - energy.mean()) / energy.std(ddof=1)
        lines.append(
            f"{name}: energy distance {listed} (1e-4), {z:.0f} deviations above the floor;"
            f" log density {gap:+.3f} of the truth's; {own[0].seconds:.0f} s"
        )
    seeds = {n: [r.energy for r in rows if r.model == n] for n in score}
    best, other = sorted(score, key=lambda n: score[n])
    clear = max(seeds[best]) < min(seeds[other])
    ratio = score[other] / max(score[best], float(energy.std(ddof=1)))  # no less can be told
    lines.append(
        f"{best} is nearer the truth than {other} by a factor of {ratio:.1f} in energy distance:"
        f" {'in every seed' if clear else 'BUT NOT IN EVERY SEED'}"
    )
    wide = max(float(energy.std(ddof=1)), *(float(np.std(s)) for s in seeds.values()))
    half = scipy.stats.t.ppf(0.975, len(energy) - 1) * wide
    half *= sum(1 / len(s) for s in seeds.values()) ** 0.5
    gap = verdict.about(score["softmax"] - score["wright_fisher"], float(half))
    lines.append(
        f"Wright-Fisher is nearer than softmax, by {1e4 * gap.slope:.2f} +- {1e4 * half:.2f}"
        f" (1e-4): {verdict.judge(gap, low=0)}"
    )
    return lines


# -- the page -----------------------------------------------------------------------------------

TITLES = {"truth": "truth", "wright_fisher": "Wright-Fisher", "softmax": r"softmax of $R^2$"}


def flat(x: np.ndarray) -> np.ndarray:
    """Points [n, 3] of the triangle in the plane: [n, 2]."""
    return x @ np.array([[0, 0], [1, 0], [0.5, np.sqrt(3) / 2]])


def figure(shown: dict[str, np.ndarray], path: Path) -> None:
    """A ternary plot a law, the true density drawn behind it as contours: PNG and PDF."""
    corners = flat(np.eye(3)[[0, 1, 2, 0]])
    side = np.linspace(0.002, 0.998, 200)
    u, v = (a.ravel() for a in np.meshgrid(side, side))
    inside = u + v < 0.998
    grid = np.stack([u, v, 1 - u - v], -1)[inside]
    density = dirichlet_log_density(grid)
    levels = density.max() - np.arange(6, 0, -1) * 0.8
    with page.figure(path, 1, len(shown), (4 * len(shown), 3.8)) as (_, axes):
        for ax, (name, x) in zip(axes, shown.items(), strict=True):
            ax.tricontour(*flat(grid).T, density, levels=levels, colors="#888888", linewidths=0.5)
            ax.scatter(*flat(x).T, s=1.5, alpha=0.35, linewidths=0, color="#0072b2")
            ax.plot(*corners.T, color="#222222", lw=0.8)
            for i, corner in enumerate(corners[:3]):
                place = corner + 0.06 * (corner - corners[:3].mean(0))
                ax.annotate(f"$x_{i + 1}$", place, ha="center", va="center")
            ax.set(title=TITLES[name], aspect="equal")
            ax.axis("off")


def run(preset: Preset, out: Path) -> list[str]:
    """Measures, then writes rows.csv, figure.png, figure.pdf and verdicts.txt to `out`."""
    rows, shown = measure(preset)
    page.table(out / "rows.csv", rows)
    figure(shown, out / "figure")
    lines = verdicts(rows)
    return page.say(out, lines)


def main() -> None:
    """The command line of `run`."""
    page.command("dirichlet_mixture", run, PRESETS, __doc__)


if __name__ == "__main__":
    main()
