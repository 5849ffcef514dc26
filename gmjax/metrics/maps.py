"""Pictures of continuous and mixed states: samples beside data, films, densities.

`PICTURES` has one for every kind of data, made of the panels of `gmjax.metrics.views`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gmjax.metrics.film import pick, write
from gmjax.metrics.plots import ACCENTS, canvas, save, sheet
from gmjax.metrics.report import thin
from gmjax.metrics.views import CORNERS, PANELS, Panel
from gmjax.types import lookup

DOTS = 400  # points on top of a density, which more would hide
SHOWN = 4000  # points of a set
BIAS = 0.005  # of a density's integral, from noise in its logarithm
STILL = 3  # panels of a strip of stills


def _grid(panels: list[Panel], columns: int, cell: tuple[float, float], top: float = 0.0):
    """A figure with one pair of axes a panel: (figure, axes)."""
    rows = -(-len(panels) // columns)
    figure = sheet(columns * cell[0], rows * cell[1] + top)
    axes = [
        figure.add_subplot(rows, columns, i + 1, projection=panel.projection)
        for i, panel in enumerate(panels)
    ]
    return figure, axes


def _cell(panels: list[Panel], size: float) -> tuple[float, float]:
    """Inches of a panel: maps of the sphere are twice as wide as high, histograms are low."""
    wide = any(panel.projection for panel in panels)
    low = all(panel.over for panel in panels)
    return (1.5 * size, 0.85 * size) if wide else (size, 0.7 * size if low else size)


def _say(figure, panels: list[Panel], shown: int | None = None) -> None:
    """Below a figure: what of the states its panels do not show, and how many of them it has."""
    notes = list(dict.fromkeys(panel.note for panel in panels if panel.note))
    if shown is not None and shown < len(panels):
        notes = [f"the first {shown} of {len(panels)} views"]
    if notes:
        figure.supxlabel("; ".join(notes), fontsize=8, color="#444444")


def _few(x: Any, count: int) -> Any:
    return jax.tree.map(lambda a: thin(np.asarray(a), count), x)


def picture(
    kind: str,
    path: str | Path,
    samples: Any,
    real: Any,
    names: Any = (),
    titles: Sequence[str] = ("samples", "held-out data"),
) -> Path:
    """PNG: samples beside (or, for histograms, in front of) data, as many of one as of the other.

    Args:
        kind: a row of `PANELS`.
        path: of the PNG.
        samples, real: [n, *S], or dictionaries of such.
        names: of the coordinates, as in `DataSpec.names`.
        titles: of the two sets.

    Returns:
        The path.
    """
    real = jax.tree.map(np.asarray, real)
    panels = lookup(PANELS, kind, "config.data.kind")(real, names)
    if all(panel.over for panel in panels):
        columns = min(len(panels), 4)
        figure, axes = _grid(panels, columns, (2.8, 1.9) if columns > 1 else (5.4, 3.6), 0.3)
        for panel, ax in zip(panels, axes, strict=True):
            panel.draw(ax, jax.tree.map(np.asarray, samples))
        handles, _ = axes[0].get_legend_handles_labels()
        figure.legend(
            handles,
            reversed(titles),
            loc="outside upper center",
            ncols=2,
            frameon=False,
            fontsize=9,
        )
        return save(figure, path)
    count = min(SHOWN, *(len(jax.tree.leaves(x)[0]) for x in (samples, real)))
    sets = [_few(x, count) for x in (samples, real)]
    across = 2 if len(panels) < 4 else 4
    pairs = [panel for panel in panels for _ in sets]
    figure, axes = _grid(pairs, across, _cell(panels, 4.2 if across == 2 else 3.2))
    for i, (panel, ax) in enumerate(zip(pairs, axes, strict=True)):
        panel.draw(ax, sets[i % 2])
        if i < across:
            ax.set_title(titles[i % 2], fontsize=11, color="#222222", pad=8)
    _say(figure, panels)
    return save(figure, path)


# kind -> (path, samples, real, names = (), titles = ...) -> path
PICTURES: dict[str, Callable[..., Path]] = {kind: partial(picture, kind) for kind in PANELS}


def film(
    path: str | Path,
    trajectory: Any,
    times: np.ndarray,
    kind: str,
    names: Any = (),
    frames: int = 40,
    stills: int = 6,
    real: Any = None,
) -> tuple[Path, Path]:
    """GIF of a trajectory, and beside it (same name, .png) a strip of stills.

    Args:
        path: of the GIF.
        trajectory: [T, n, *S], or a dictionary of such, first states first; at most 2000 are
            shown.
        times: [T], the time of each.
        kind: a row of `PANELS`.
        names: of the coordinates, as in `DataSpec.names`.
        frames: at most so many, evenly spaced; the first and the last always.
        stills: likewise, of the strip, which shows the first three panels.
        real: data [m, *S], which give the limits and stand behind histograms; the last states
            where None.

    Returns:
        (path of the GIF, path of the PNG).
    """
    times = np.asarray(times, np.float64)
    x = jax.tree.map(lambda a: np.asarray(a)[:, :2000], trajectory)
    at = lambda k: jax.tree.map(lambda a: a[k], x)
    # Samples that are not finite may not spoil the limits.
    behind = jax.tree.map(
        lambda a: np.nan_to_num(a, posinf=0, neginf=0), at(-1) if real is None else real
    )
    panels = lookup(PANELS, kind, "config.data.kind")(behind, names)
    picked = pick(len(times), frames)
    done = picked / max(len(times) - 1, 1)
    pictures = _frames(panels, [at(k) for k in picked])
    gif = write(path, pictures, times[picked], done)

    kept = pick(len(times), stills)
    rows = [panel for panel in panels[:STILL] for _ in kept]
    figure, axes = _grid(rows, len(kept), _cell(panels, 2.0))
    for i, (panel, ax) in enumerate(zip(rows, axes, strict=True)):
        _calm(panel, ax, at(kept[i % len(kept)]))
        if i < len(kept):
            ax.set_title(f"t = {times[kept[i]]:.2f}", fontsize=9, color="#222222")
    _say(figure, panels, STILL)
    return gif, save(figure, gif.with_suffix(".png"))


def _calm(panel: Panel, axes, x: Any) -> None:
    """A panel without ticks and names, small."""
    panel.draw(axes, x)
    axes.set(xlabel="", ylabel="")
    if panel.projection is None and not panel.over:
        axes.set_xticks([])
        axes.set_yticks([])


def _frames(panels: list[Panel], states: list[Any]) -> np.ndarray:
    """[F, H, W, 3] uint8: the same axes, drawn anew for every state."""
    columns = 1 if len(panels) == 1 else min(4, 2 if len(panels) < 5 else 4)
    figure, axes = _grid(panels, columns, _cell(panels, 4.0 if columns == 1 else 2.4))
    figure.set_dpi(100)
    _say(figure, panels)
    out = []
    for i, x in enumerate(states):
        for panel, ax in zip(panels, axes, strict=True):
            ax.clear()
            panel.draw(ax, x)
        figure.canvas.draw()
        if i == 0:  # one layout for all frames: they must not shake
            figure.set_layout_engine("none")
        out.append(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    return np.stack(out)


class Grid(NamedTuple):
    """A space cut into cells."""

    states: np.ndarray  # [M, *S], their centres
    volume: np.ndarray  # [M]
    paint: Callable[..., Any]  # (axes, values [M], **how) -> what a colour bar needs


def _plane_grid(cells: int, points: np.ndarray) -> Grid:
    """The box of the data and a third of its sides around them."""
    low, high = points.min(0), points.max(0)
    rim = (high - low) / 3 + 1e-6
    x, y = (np.linspace(a, b, cells + 1) for a, b in zip(low - rim, high + rim, strict=True))
    middle = lambda edges: 0.5 * (edges[1:] + edges[:-1])
    states = np.stack(np.meshgrid(middle(x), middle(y)), -1).reshape(-1, 2)
    volume = np.full(cells**2, (x[1] - x[0]) * (y[1] - y[0]))
    paint = lambda axes, z, **how: axes.pcolormesh(x, y, z.reshape(cells, cells), **how)
    return Grid(states, volume, paint)


def _sphere_grid(cells: int, points: np.ndarray) -> Grid:
    """Cells of equal angles: cells parallels, twice as many meridians."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, cells + 1)
    longitude = np.linspace(-np.pi, np.pi, 2 * cells + 1)
    middle = lambda edges: 0.5 * (edges[1:] + edges[:-1])
    u, v = (a.ravel() for a in np.meshgrid(middle(latitude), middle(longitude), indexing="ij"))
    states = np.stack([np.cos(u) * np.cos(v), np.cos(u) * np.sin(v), np.sin(u)], -1)
    volume = np.repeat(np.diff(np.sin(latitude)), 2 * cells) * np.pi / cells
    shape = (cells, 2 * cells)
    paint = lambda axes, z, **how: axes.pcolormesh(longitude, latitude, z.reshape(shape), **how)
    return Grid(states, volume, paint)


def _torus_grid(cells: int, points: np.ndarray) -> Grid:
    edges = np.linspace(-np.pi, np.pi, cells + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    states = np.stack(np.meshgrid(middle, middle), -1).reshape(-1, 2)  # the first angle across
    volume = np.full(cells**2, (2 * np.pi / cells) ** 2)
    turns = np.degrees(edges)
    paint = lambda axes, z, **how: axes.pcolormesh(turns, turns, z.reshape(cells, cells), **how)
    return Grid(states, volume, paint)


def _simplex_grid(cells: int, points: np.ndarray) -> Grid:
    """Equal triangles; the volume is Lebesgue's of the first two parts, 1/2 in all."""
    corners = np.array(
        [(i, j, cells - i - j) for i in range(cells + 1) for j in range(cells + 1 - i)]
    )
    number = {(i, j): k for k, (i, j, _) in enumerate(corners)}
    faces = [
        [number[i + a, j + b] for a, b in offsets]
        for i in range(cells)
        for j in range(cells - i)
        for offsets in (((0, 0), (1, 0), (0, 1)), ((1, 0), (0, 1), (1, 1)))
        if (i + offsets[2][0], j + offsets[2][1]) in number
    ]
    states = corners[faces].mean(1) / cells
    at = (corners / cells) @ CORNERS
    paint = lambda axes, z, **how: axes.tripcolor(*at.T, faces, facecolors=z, **how)
    return Grid(states, np.full(len(faces), 0.5 / cells**2), paint)


# kind -> (cells, data) -> Grid; for states of so many numbers
GRIDS: dict[str, Callable[[int, np.ndarray], Grid]] = {
    "euclidean": _plane_grid,
    "sphere": _sphere_grid,
    "torus": _torus_grid,
    "simplex": _simplex_grid,
}
SIZES = {"euclidean": 2, "sphere": 3, "torus": 2, "simplex": 3}


def density(
    path: str | Path,
    log_prob: Callable[[np.ndarray], Any],
    points: np.ndarray,
    kind: str = "sphere",
    title: str = "",
    names: Sequence[str] = (),
    cells: int = 90,
    batch: int = 4096,
) -> tuple[Path, float]:
    """PNG: a density as shades, three decades of it, with points on top.

    Args:
        path: of the PNG.
        log_prob: states [batch, *S] float32 -> [batch] nats, with respect to the volume.
        points: [n, *S], held-out data.
        kind: a row of `GRIDS`.
        title: above the map.
        names: of the coordinates.
        cells: along an axis; the density is asked for at 2 cells^2 (sphere) or cells^2 points.
        batch: as many at a time, the last filled up, so that one compilation serves.

    Returns:
        The path, and the integral of the density by the rule of midpoints: 1 for a right one.
    """
    from matplotlib.colors import LogNorm

    grid = lookup(GRIDS, kind, "config.data.kind")(cells, points)
    number = len(grid.states)
    states = np.resize(grid.states, (-(-number // batch) * batch, *grid.states.shape[1:]))
    pieces = np.split(states.astype(np.float32), len(states) // batch)
    values = np.exp(np.concatenate([np.asarray(log_prob(x), np.float64) for x in pieces])[:number])
    mass = float(values @ grid.volume)

    panel = PANELS[kind](points, names)[0]
    figure, (axes,) = _grid([panel], 1, _cell([panel], 4.8))
    few = np.random.default_rng(0).permutation(len(points))[:DOTS]
    panel.draw(axes, points[few])
    axes.collections[-1].set(sizes=[3.0], facecolor=ACCENTS[1], alpha=0.8, zorder=3)
    top = float(np.quantile(values, 0.999)) or 1.0
    how = {"cmap": "Blues", "norm": LogNorm(top / 1e3, top, clip=True), "zorder": 1}
    shades = grid.paint(axes, np.maximum(values, top / 1e3), rasterized=True, **how)
    bar = figure.colorbar(shades, ax=axes, pad=0.03, shrink=0.8, label="density")
    bar.outline.set_visible(False)
    axes.set_title(title, fontsize=11, color="#222222", pad=8)
    return save(figure, path), mass


def steady(draw: Callable[[int, np.ndarray], Any], bias: float = BIAS, most: int = 8) -> Callable:
    """The mean of a noisy log-density, whose exponential may be taken.

    With noise of variance v the exponential of a mean of R draws m is too large by v / (2 R) in
    mean, so that a density would integrate to more than one: there are so many draws that this is
    small, and what is left, known from their spread, is taken off.

    Args:
        draw: (number of the draw, states [n, *S]) -> [n] nats, of a mean that is wanted.
        bias: relative, of the integral over the states, before what is left is taken off.
        most: draws.

    Returns:
        states [n, *S] -> [n] nats.
    """

    def log_prob(x: np.ndarray) -> np.ndarray:
        draws: list[np.ndarray] = []
        while True:
            draws.append(np.asarray(draw(len(draws), x), np.float64))
            if len(draws) < 2:
                continue
            mean, excess = np.mean(draws, 0), 0.5 * np.var(draws, 0, ddof=1) / len(draws)
            weight = np.exp(mean - mean.max())
            if weight @ excess <= bias * weight.sum() or len(draws) >= most:
                return mean - excess

    return log_prob


def field(
    path: str | Path,
    velocity: Callable[[np.ndarray, float], Any],
    film: np.ndarray,
    times: np.ndarray,
    points: np.ndarray,
    cells: int = 17,
    shown: int = 4,
) -> Path:
    """PNG: the vector field of a flow in the plane at a few times, with the states on top.

    Args:
        path: of the PNG.
        velocity: (x [cells^2, 2] float32, t) -> [cells^2, 2], the change of x per unit of t; drawn
            backwards, as a sampler goes, at a length of its own in each panel.
        film: [N + 1, m, 2], the states of a run along `times`.
        times: [N + 1].
        points: [n, 2] data, which set the box.
        cells: arrows along an axis.
        shown: number of times.
    """
    chosen = pick(len(times), shown)
    x = _plane_grid(cells, points).states.astype(np.float32)
    figure, axes = canvas(3.2 * len(chosen), 3.5, 1, len(chosen))
    low, high = x.min(0), x.max(0)
    for ax, i in zip(axes[0], chosen, strict=True):
        v = -np.asarray(velocity(x, float(times[i])))
        ax.scatter(*film[i].T, s=4, color=ACCENTS[1], alpha=0.5, linewidths=0)
        ax.quiver(*x.T, *v.T, color=ACCENTS[0], width=0.004, pivot="mid")
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
        ax.set_title(f"t = {times[i]:.2f}", fontsize=10, color="#444444")
        ax.spines[:].set_color("#d9d9d9")
    return save(figure, path)
