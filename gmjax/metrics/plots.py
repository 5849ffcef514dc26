"""Pictures of a run: samples beside data, the reverse process as a film, the loss.

Values 0 .. S - 1 are ink on paper (or colours, for three channels); any value of S and above,
such as the state of a masked site, has a colour of its own, so that a viewer can tell "not yet
decided" from "black". matplotlib and Pillow are imported where they are used, matplotlib with the
Agg canvas and without pyplot: no display, no global figures.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from gmjax.types import DataSpec

PAPER, INK = np.array([252, 251, 247]), np.array([24, 28, 44])
MASK = np.array([111, 168, 220])
VOID = np.array([238, 237, 232])  # undecided, where the values themselves are coloured
GAP = np.array([224, 222, 214])
ACCENTS = ("#2f6db3", "#d1603d", "#3f8f5b", "#8a5aa8")


def colours(x: np.ndarray, num_values: int) -> np.ndarray:
    """Images of discrete values as colours.

    Args:
        x: [n, H, W] or [n, H, W, C], C = 1 or 3, integers; >= num_values: masked.
        num_values: S.

    Returns:
        [n, H, W, 3] uint8.
    """
    x = np.asarray(x)
    x = x[..., None] if x.ndim == 3 else x
    level = np.clip(x, 0, num_values - 1) / (num_values - 1)
    shade = level * 255.0 if x.shape[-1] == 3 else PAPER + level * (INK - PAPER)
    masked = (x >= num_values).any(-1, keepdims=True)
    return np.where(masked, MASK, shade).round().astype(np.uint8)


def tile(images: np.ndarray, columns: int, zoom: int = 1, gap: int = 1) -> np.ndarray:
    """Images [n, H, W, 3] uint8 in a grid, row by row: [rows (H zoom + gap) + gap, ..., 3]."""
    n, height, width, _ = images.shape
    rows = -(-n // columns)
    full = np.broadcast_to(GAP.astype(np.uint8), (rows * columns, height, width, 3)).copy()
    full[:n] = images
    full = full.repeat(zoom, 1).repeat(zoom, 2)
    full = np.pad(full, ((0, 0), (gap, 0), (gap, 0), (0, 0)))
    full[:, :gap] = full[:, :, :gap] = GAP
    cells = full.reshape(rows, columns, *full.shape[1:])
    grid = cells.transpose(0, 2, 1, 3, 4).reshape(rows * full.shape[1], -1, 3)
    grid = np.pad(grid, ((0, gap), (0, gap), (0, 0)))
    if gap:
        grid[-gap:] = grid[:, -gap:] = GAP
    return grid


def sheet(width: float, height: float):
    """An empty figure on the Agg canvas, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    room = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(width, height), layout=room, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **kwargs: Any):
    """A figure on the Agg canvas in inches, and its axes [rows, columns]."""
    figure = sheet(width, height)
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def bare(axes, title: str = "") -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11, color="#222222", pad=8)


def save(figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def sample_grid(
    path: str | Path,
    samples: np.ndarray,
    real: np.ndarray,
    num_values: int,
    titles: Sequence[str] = ("samples", "held-out data"),
    nearest: np.ndarray | None = None,
    side: int = 10,
) -> Path:
    """PNG: a square of samples beside a square of data, and their nearest training images.

    Args:
        path: of the PNG.
        samples, real: [n, H, W] or [n, H, W, C] integers; the first side^2 are shown.
        num_values: S.
        titles: of the panels.
        nearest: the training image nearest to each sample, same shape: a third panel in which
            a viewer can look for copies.
        side: images a row.

    Returns:
        The path.
    """
    panels = [samples, real] + ([] if nearest is None else [nearest])
    titles = [*titles, "nearest training image to each sample"][: len(panels)]
    figure, axes = canvas(5.0 * len(panels), 5.3, 1, len(panels))
    zoom = max(1, 480 // (side * np.shape(samples)[2]))
    for ax, images, title in zip(axes[0], panels, titles, strict=True):
        grid = tile(colours(images[: side * side], num_values), side, zoom, max(1, zoom // 2))
        ax.imshow(grid, interpolation="nearest")
        bare(ax, title)
    return save(figure, path)


def heat_rows(
    path: str | Path,
    samples: np.ndarray,
    real: np.ndarray,
    num_values: int,
    titles: Sequence[str] = ("samples", "held-out data"),
    rows: int = 32,
) -> Path:
    """PNG: sequences or vectors [n, ...] as rows of coloured cells, samples beside data."""
    from matplotlib import colormaps

    figure, axes = canvas(11.0, 4.4, 1, 2)
    low, high = value_range(real, num_values)
    shades = colormaps["viridis"].resampled(high - low + 1)
    for ax, x, title in zip(axes[0], (samples, real), titles, strict=True):
        cells = np.reshape(x, (len(x), -1))[:rows]
        image = ax.imshow(
            np.ma.masked_greater_equal(cells, num_values),
            cmap=shades,
            vmin=low - 0.5,
            vmax=high + 0.5,
            aspect="auto",
            interpolation="nearest",
        )
        ax.set_facecolor(VOID / 255)
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        ax.set_title(title, fontsize=11, pad=8)
        ax.set_xlabel("position")
    step = max(1, (high - low) // 8)
    bar = figure.colorbar(
        image, ax=axes[0, 1], pad=0.02, label="value", ticks=range(low, high + 1, step)
    )
    bar.outline.set_visible(False)
    return save(figure, path)


def value_range(x: np.ndarray, num_values: int) -> tuple[int, int]:
    """The values that all but the rarest hundredth at either end lie in: what colours span."""
    x = np.ravel(x)
    low, high = np.quantile(x[x < num_values], (0.01, 0.99), method="nearest")
    return int(low), max(int(high), int(low) + 1)


def piano_roll(
    path: str | Path,
    samples: np.ndarray,
    real: np.ndarray,
    num_values: int,
    titles: Sequence[str] = ("samples", "held-out data"),
    rows: int = 4,
    given: int = 0,
) -> Path:
    """PNG: ordinal sequences drawn as value against position, samples beside data.

    Args:
        path: of the PNG.
        samples, real: [n, L] integers, or [n, L, V] for V simultaneous voices.
        num_values: S.
        titles: of the columns.
        rows: sequences shown.
        given: the first so many positions were given to the sampler; they are shaded.

    Returns:
        The path.
    """
    rows = min(rows, len(samples), len(real))
    figure, axes = canvas(11.0, 1.5 * rows + 0.6, rows, 2, sharex=True, sharey=True)
    shown = np.concatenate([np.ravel(samples[:rows]), np.ravel(real[:rows])])
    bottom, top = value_range(shown, num_values)  # rests, far below all notes, do not stretch it
    for column, (x, title) in enumerate(zip((samples, real), titles, strict=True)):
        for row in range(rows):
            ax = axes[row, column]
            voices = np.reshape(x[row], (np.shape(x)[1], -1))
            for voice, colour in zip(voices.T, cycle(ACCENTS), strict=False):
                edges = np.flatnonzero(np.diff(voice, prepend=-1, append=-1))
                ax.hlines(voice[edges[:-1]], edges[:-1], edges[1:], color=colour, linewidth=2.4)
            if given:
                ax.axvspan(0, given, color="#ece8dc", zorder=0)
            ax.set_xlim(0, len(voices))
            ax.set_ylim(bottom - 5, top + 5)
            ax.grid(axis="y", color="#eeeeee", linewidth=0.6)
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(labelsize=8)
        axes[0, column].set_title(title + (f" (first {given} given)" if given else ""), fontsize=11)
        axes[-1, column].set_xlabel("position", fontsize=9)
    figure.supylabel("value", fontsize=9)
    return save(figure, path)


def histogram_pair(
    path: str | Path,
    samples: np.ndarray,
    real: np.ndarray,
    num_values: int,
    titles: Sequence[str] = ("samples", "held-out data"),
) -> Path:
    """PNG: 2-D histograms of the first two coordinates of x [n, D], on one colour scale."""
    laws = [joint_histogram(x, num_values) for x in (samples, real)]
    figure, axes = canvas(10.4, 4.8, 1, 2)
    for ax, law, title in zip(axes[0], laws, titles, strict=True):
        image = ax.imshow(
            law,
            origin="lower",
            cmap="magma_r",
            vmin=0.0,
            vmax=np.quantile(laws[1], 0.999) or None,
            interpolation="nearest",
        )
        bare(ax, title)
    bar = figure.colorbar(image, ax=axes, pad=0.02, shrink=0.9, label="probability")
    bar.outline.set_visible(False)
    count = np.size(real[0])
    if count > 2:
        figure.supxlabel(f"two of {count} coordinates", fontsize=8)
    return save(figure, path)


def joint_histogram(x: np.ndarray, num_values: int) -> np.ndarray:
    """The empirical law [S, S] of (x[:, 1], x[:, 0]); masked sites are left out."""
    x = np.reshape(x, (len(x), -1))[:, :2]
    x = x[(x < num_values).all(1)]
    counts = np.zeros((num_values, num_values))
    np.add.at(counts, (x[:, 1], x[:, 0]), 1.0)
    return counts / max(len(x), 1)


def loss_curve(
    path: str | Path,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ylabel: str = "loss",
) -> Path:
    """PNG: losses against steps; long noisy curves faint, with their running mean on top.

    Args:
        path: of the PNG.
        curves: {name: (steps [n], values [n])}.
        ylabel: of the vertical axis, with its unit.

    Returns:
        The path.
    """
    figure, axes = canvas(7.2, 4.2)
    ax = axes[0, 0]
    low, high = [], []
    for (name, (steps, values)), colour in zip(curves.items(), cycle(ACCENTS), strict=False):
        steps, values = np.asarray(steps), np.asarray(values, np.float64)
        width = max(1, len(values) // 40)
        smooth = np.convolve(values, np.ones(width) / width, "valid")
        if width > 1:
            ax.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        ax.plot(
            steps[(width - 1) // 2 :][: len(smooth)],
            smooth,
            color=colour,
            label=name,
            linewidth=1.8,
            marker="o" if len(values) < 30 else "",
            markersize=4,
        )
        # The first steps would flatten all that follows: show from where most of the run lies.
        low.append(values.min())
        high.append(np.quantile(values, 0.98))
    margin = 0.06 * (max(high) - min(low)) or 1.0
    ax.set_ylim(min(low) - margin, max(high) + margin)
    ax.set_xlabel("step")
    ax.set_ylabel(ylabel)
    ax.grid(color="#eeeeee")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return save(figure, path)


def noise_curve(path: str | Path, log_snr: np.ndarray, loss: np.ndarray) -> Path:
    """PNG: the error of the denoiser against the log signal-to-noise ratio.

    Args:
        path: of the PNG.
        log_snr: [M]; loss: [M], mean square error of the noise, one at no knowledge.
    """
    figure, axes = canvas(6.2, 3.8)
    ax = axes[0, 0]
    ax.plot(log_snr, loss, color=ACCENTS[0], linewidth=1.8, marker="o", markersize=4)
    ax.set_xlabel("log signal-to-noise ratio")
    ax.set_ylabel("mean square error of the noise")
    ax.grid(color="#eeeeee")
    ax.spines[["top", "right"]].set_visible(False)
    return save(figure, path)


# kind -> (path, samples, real, num_values) -> path
PICTURES: dict[str, Callable[..., Path]] = {
    "image": sample_grid,
    "sequence": heat_rows,
    "ordinal sequence": piano_roll,
    "vector": histogram_pair,
}


def picture(spec: DataSpec) -> Callable[..., Path]:
    """The picture that suits the data: (path, samples, real, num_values) -> path."""
    ordinal = "ordinal " if spec.kind == "sequence" and spec.ordinal else ""
    return PICTURES[ordinal + spec.kind]
