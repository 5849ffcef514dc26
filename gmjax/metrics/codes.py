"""Pictures of what a model with codes does: one a row of `PICTURES`, named as in `Method.views`.

A view is an array that the model makes of a batch of held-out examples, x [B, *S]:

    reconstruction  [B, *S], each example decoded from its code
    traversal       [R, K, *S], one code decoded, of which a coordinate a row takes K values
    codes           [B, L], a point an example: the plane of the first two principal components
    log_weights     [N, B] nats, of importance sampling: their spread, and how many count
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gmjax.metrics import maps, plots
from gmjax.metrics.plots import ACCENTS
from gmjax.types import DataSpec, lookup

SIDE = 12  # images a row
DECADES = 8.0  # of relative weights


def reconstruction(path: Path, view: np.ndarray, batch: Mapping[str, Any], spec: DataSpec) -> Path:
    """PNG: images in pairs of rows, the datum above; other data beside what is made of them."""
    x, titles = np.asarray(batch["x"]), ("reconstruction", "held-out data")
    if spec.kind in maps.PICTURES:
        return maps.PICTURES[spec.kind](path, view, x, spec.names, titles)
    if spec.kind != "image":
        return plots.picture(spec)(path, view, x, spec.num_values, titles)
    rows = min(5, len(x) // SIDE) or 1
    pairs = np.stack([a[: rows * SIDE].reshape(rows, -1, *spec.shape) for a in (x, view)], 1)
    title = "held-out data, and below each its reconstruction"
    return _images(path, pairs.reshape(-1, *spec.shape), pairs.shape[2], spec, title)


def traversal(path: Path, view: np.ndarray, batch: Mapping[str, Any], spec: DataSpec) -> Path:
    """PNG: a row a coordinate of the code, which moves from left to right."""
    rows, columns = view.shape[:2]
    title = f"one coordinate of a code moved through {columns} values, a row a coordinate"
    if spec.kind == "image":
        return _images(path, view.reshape(-1, *spec.shape), columns, spec, title)
    across = min(rows, 5)
    figure, axes = plots.canvas(2.4 * across, 2.2 * -(-rows // across), -(-rows // across), across)
    flat = np.asarray(view, np.float64).reshape(rows, columns, -1)
    for i, ax in enumerate(axes.flat):
        plots.bare(ax, f"coordinate {i + 1}" if i < rows else "")
        if i < rows:
            ax.imshow(flat[i], aspect="auto", vmin=flat.min(), vmax=flat.max(), cmap="viridis")
    figure.supxlabel("entry of x", fontsize=9)
    figure.supylabel("value of the coordinate", fontsize=9)
    return plots.save(figure, path)


def codes(path: Path, view: np.ndarray, batch: Mapping[str, Any], spec: DataSpec) -> Path:
    """PNG: codes in a plane that holds most of their variance, coloured by label."""
    from matplotlib import colormaps

    at, name = plane(view)
    figure, axes = plots.canvas(6.4, 5.4)
    ax, label = axes[0, 0], batch.get("label")
    kinds = [None] if label is None else list(np.unique(label))
    shades = colormaps["tab10" if len(kinds) <= 10 else "turbo"].resampled(max(len(kinds), 2))
    for i, kind in enumerate(kinds):
        own = at if kind is None else at[np.asarray(label) == kind]
        colour = ACCENTS[0] if kind is None else shades(i)
        ax.scatter(*own.T, s=9, color=colour, alpha=0.7, linewidths=0, label=kind)
    count = f" of {view.shape[1]}" if view.shape[1] > 2 else ""
    ax.set_xlabel(f"first {name}{count}")
    ax.set_ylabel(f"second {name}{count}")
    ax.set_aspect("equal", adjustable="datalim")
    ax.grid(color="#eeeeee")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title("codes of held-out data, posterior means", fontsize=11, pad=8)
    if label is not None and len(kinds) <= 20:
        figure.legend(loc="outside right center", frameon=False, markerscale=2, fontsize=9)
    return plots.save(figure, path)


def plane(codes: np.ndarray) -> tuple[np.ndarray, str]:
    """Codes [B, L] as points [B, 2], and what an axis is; a single coordinate gets zeros."""
    z = np.asarray(codes, np.float64)
    if z.shape[1] < 3:
        return np.pad(z, ((0, 0), (0, 2 - z.shape[1]))), "coordinate"
    z = z - z.mean(0)
    return z @ np.linalg.svd(z, full_matrices=False)[2][:2].T, "principal component"


def log_weights(path: Path, view: np.ndarray, batch: Mapping[str, Any], spec: DataSpec) -> Path:
    """PNG: w_j / mean w of every draw, and (sum w)^2 / sum w^2 of every example."""
    share = relative(view)
    n = len(share)
    effective = n**2 / np.sum(share**2, 0)
    figure, axes = plots.canvas(10.0, 3.8, 1, 2)
    decades = np.log10(np.maximum(share, 10.0**-DECADES)).ravel()
    left, right = axes[0]
    left.hist(decades, np.linspace(-DECADES, np.log10(n), 49), color=ACCENTS[0])
    left.set_xlabel("log10 of a weight over the mean weight (the lowest bin: that and below)")
    left.set_ylabel("draws")
    right.hist(effective, np.linspace(1, n, 31), color=ACCENTS[2])
    right.axvline(effective.mean(), color="#222222", linewidth=1.2)
    right.set_xlabel(f"effective sample size of {n} draws, mean {effective.mean():.2f}")
    right.set_ylabel("examples")
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
    return plots.save(figure, path)


def relative(log_weights: np.ndarray) -> np.ndarray:
    """w_j / mean w, of [N, B] nats, along the first axis."""
    top = np.asarray(log_weights, np.float64)
    w = np.exp(top - top.max(0))
    return w / w.mean(0)


def _images(path: Path, x: np.ndarray, columns: int, spec: DataSpec, title: str) -> Path:
    zoom = max(1, 720 // (columns * spec.shape[1]))
    grid = plots.tile(plots.colours(x, spec.num_values), columns, zoom, max(1, zoom // 2))
    height, width = grid.shape[:2]
    figure, axes = plots.canvas(7.6, 7.6 * height / width + 0.5)
    axes[0, 0].imshow(grid, interpolation="nearest")
    plots.bare(axes[0, 0], title)
    return plots.save(figure, path)


# the name of a view -> (path, view, batch, spec) -> path
PICTURES: dict[str, Callable[..., Path]] = {
    "reconstruction": reconstruction,
    "traversal": traversal,
    "codes": codes,
    "log_weights": log_weights,
}


def draw(
    directory: Path, views: Mapping[str, Any], batch: Mapping[str, Any], spec: DataSpec
) -> list[Path]:
    """Every view as `directory / NAME.png`.

    Args:
        directory: of the pictures.
        views: names of `PICTURES` -> arrays.
        batch: what the views were made of, {"x": [B, *S], "label": [B] if there are any}.
        spec: of the data.

    Raises:
        UserError: a view that has no picture.
    """
    return [
        lookup(PICTURES, name, "view")(directory / f"{name}.png", np.asarray(view), batch, spec)
        for name, view in views.items()
    ]
