"""Views of continuous and mixed states, the panels that `gmjax.metrics.maps` puts together.

A kind of data is a list of panels, each of which draws a set of states on one pair of axes: the
sphere in Mollweide's equal-area projection, pairs of angles as Ramachandran plots, the simplex as
a triangle, hyperbolic space as Poincare's disc, rotations R by where they take the x axis, in
Mollweide's projection, and by their tilt about it as a colour. The tilt is measured from the
shortest turn of e_x to R e_x:

    tilt = atan2(R_21 - R_12, R_11 + R_22)        (indices from 0),

a turn about x itself where R keeps it, and smooth but where R e_x = -e_x. Columns of tables and
single coordinates are histograms, with the data behind the samples. Limits come from the data, so
that panels can be compared.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from gmjax.metrics.plots import ACCENTS, bare, colours, tile

PLANES = 12  # of pairs of coordinates, at most
LINE, PALE, TEXT = "#d9d9d9", "#d5d2c8", "#444444"


class Panel(NamedTuple):
    """One view of a set of states."""

    draw: Callable[[Any, Any], None]  # (axes, x [n, *S])
    projection: str | None = None
    over: bool = False  # does it show the data behind the samples?
    note: str = ""  # what of the states is not seen; the picture says it


def _dots(axes, x: np.ndarray, y: np.ndarray, colour: Any = ACCENTS[0], **kwargs: Any) -> None:
    size = np.clip(6000 / max(len(x), 1), 2.0, 16.0)
    axes.scatter(x, y, s=size, c=colour, alpha=0.55, linewidths=0, **kwargs)


def frame(axes, xlabel: str, ylabel: str = "") -> None:
    """Light axes with names."""
    axes.set_xlabel(xlabel, fontsize=9, color=TEXT)
    axes.set_ylabel(ylabel, fontsize=9, color=TEXT)
    axes.tick_params(labelsize=8, color=LINE, labelcolor=TEXT)
    axes.spines[:].set_color(LINE)


def globe(axes) -> None:
    """Meridians and parallels."""
    axes.set_xticks(np.radians(np.arange(-120, 180, 60)), [])
    axes.set_yticks(np.radians([-60, -30, 0, 30, 60]), [])
    axes.set_longitude_grid_ends(90)
    axes.set_axisbelow(True)
    axes.grid(color=LINE, linewidth=0.5)
    axes.spines[:].set_color(LINE)


def longitude_latitude(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [n, 3] as longitudes and latitudes [n] in radians."""
    return np.arctan2(x[:, 1], x[:, 0]), np.arcsin(np.clip(x[:, 2], -1, 1))


def _sphere(axes, x: np.ndarray) -> None:
    globe(axes)
    _dots(axes, *longitude_latitude(x))


def tilt(x: np.ndarray) -> np.ndarray:
    """Angles [n] in radians by which rotations [n, 3, 3] turn about where they take the x axis."""
    return np.arctan2(x[:, 2, 1] - x[:, 1, 2], x[:, 1, 1] + x[:, 2, 2])


def _hue(turns: np.ndarray) -> np.ndarray:
    from matplotlib.colors import hsv_to_rgb

    turns = np.nan_to_num(turns)  # whose points are nowhere
    return hsv_to_rgb(np.stack([turns % 1.0, 0 * turns + 0.7, 0 * turns + 0.8], -1))


def _rotations(axes, x: np.ndarray) -> None:
    globe(axes)
    _dots(axes, *longitude_latitude(x[:, :, 0]), _hue(tilt(x) / (2 * np.pi)))
    legend = axes.inset_axes((0.0, 0.0, 0.16, 0.03))
    legend.imshow(_hue(np.linspace(0, 1, 90)[None]), aspect="auto", extent=(0, 360, 0, 1))
    legend.set_yticks([])
    legend.set_xticks([0, 360], ["0", "360°"])
    legend.set_title("tilt", fontsize=7, color=TEXT, pad=2)
    legend.tick_params(labelsize=6, length=0, labelcolor=TEXT)
    legend.spines[:].set_visible(False)


def _torus(axes, x: np.ndarray, pair: tuple[int, int], names: Sequence[str]) -> None:
    i, j = pair
    _dots(axes, *np.degrees(x[:, [i, j]]).T)
    frame(axes, f"{names[i]}, degrees", f"{names[j]}, degrees")
    axes.set_box_aspect(1)
    axes.set(xlim=(-180, 180), ylim=(-180, 180))
    axes.set_xticks(range(-180, 181, 90))
    axes.set_yticks(range(-180, 181, 90))
    axes.grid(color="#eeeeee", linewidth=0.6)
    axes.set_axisbelow(True)


# of the simplex, in the plane
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])


def triangle(axes, names: Sequence[str]) -> None:
    """The edges of the simplex, lines on which a part is a fifth, two, three, four fifths."""
    for u in np.arange(0.2, 1.0, 0.2):
        for k in range(3):  # the line on which part k is u
            ends = [u * np.eye(3)[k] + (1 - u) * np.eye(3)[(k + s) % 3] for s in (1, 2)]
            axes.plot(*(np.array(ends) @ CORNERS).T, color="#eeeeee", linewidth=0.6, zorder=0)
    axes.plot(*CORNERS[[0, 1, 2, 0]].T, color=LINE, linewidth=1.0, zorder=0)
    centre = CORNERS.mean(0)
    for name, corner in zip(names, CORNERS, strict=True):
        at = centre + 1.12 * (corner - centre)
        axes.text(*at, name, ha="center", va="center", fontsize=9, color=TEXT)
    axes.set(xlim=(-0.12, 1.12), ylim=(-0.12, 1.0), aspect="equal")
    axes.set_axis_off()


def _simplex(axes, x: np.ndarray, names: Sequence[str]) -> None:
    triangle(axes, names)
    parts = np.stack([x[:, 0], x[:, 1], x[:, 2:].sum(1)], 1)
    _dots(axes, *(parts @ CORNERS).T)


def _disc(axes, x: np.ndarray) -> None:
    turn = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(turn), np.sin(turn), color=LINE, linewidth=1.0)
    _dots(axes, *(x[:, 1:3] / (1 + x[:, :1])).T)
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    axes.set_axis_off()


def _span(column: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(column, (0.002, 0.998))
    apart = high - low > 1e-6 * max(abs(high), abs(low))  # else one value, but for rounding
    margin = 0.08 * (high - low) if apart else 0.5
    return float(low - margin), float(high + margin)


def _plane(
    axes,
    x: np.ndarray,
    pair: tuple[int, int],
    spans: Sequence[tuple[float, float]],
    names: Sequence[str],
    jitter: float,
) -> None:
    i, j = pair
    at = np.asarray(x[:, [i, j]], np.float64)
    _dots(axes, *(at + jitter * np.random.default_rng(0).uniform(-1, 1, at.shape)).T)
    frame(axes, names[i], names[j])
    axes.set_box_aspect(1)
    axes.set(xlim=spans[i], ylim=spans[j])


def _squares(axes, x: np.ndarray, side: int, top: float) -> None:
    level = np.round(16 * np.clip(x[:64] / top, 0.0, 1.0)).astype(int).reshape(-1, side, side)
    axes.imshow(tile(colours(level, 17), 8, 4, 2), interpolation="nearest")
    bare(axes)


def _histogram(axes, x: np.ndarray, real: np.ndarray, name: str, whole: bool) -> None:
    low, high = _span(real)
    low = max(low, 0.0) if real.min() >= 0 and not whole else low
    step = max(1.0, np.ceil((high - low) / 40))
    edges = np.arange(np.floor(low), high + step) - 0.5 if whole else np.linspace(low, high, 41)
    # What lies outside counts in the total, so that the areas say how much is missing.
    share = lambda a: np.histogram(a, edges)[0] / len(a) / np.diff(edges)
    behind = share(real)
    axes.stairs(behind, edges, fill=True, color=PALE, label="held-out data")
    axes.stairs(share(x), edges, color=ACCENTS[0], linewidth=1.3, label="samples")
    frame(axes, name)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.25 * behind.max()))
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def _bars(axes, x: np.ndarray, real: np.ndarray, name: str) -> None:
    values = np.arange(int(real.max()) + 1)
    share = lambda a: np.mean(a[:, None] == values, 0)
    behind = share(real)
    axes.bar(values, behind, width=0.8, color=PALE, label="held-out data")
    axes.bar(
        values,
        share(x),
        0.5,
        facecolor="none",
        edgecolor=ACCENTS[0],
        linewidth=1.3,
        label="samples",
    )
    frame(axes, name)
    axes.set_ylim(0, 1.25 * behind.max())
    axes.set_xticks(values[:: 1 + len(values) // 12])
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def _numbered(names: Sequence[str], count: int, word: str) -> Sequence[str]:
    return names if len(names) == count else [f"{word} {i + 1}" for i in range(count)]


def _of_column(draw: Callable, i: int, real: np.ndarray, **kwargs: Any) -> Panel:
    return Panel(lambda axes, x: draw(axes, x[:, i], real[:, i], **kwargs), over=True)


def _histograms(
    real: np.ndarray, names: Sequence[str] = (), word: str = "x", whole: bool = False
) -> list[Panel]:
    names = _numbered(names, real.shape[1], word)
    return [_of_column(_histogram, i, real, name=n, whole=whole) for i, n in enumerate(names)]


def _pairs(count: int) -> list[tuple[int, int]]:
    """All pairs of up to four coordinates, of more each with the next, as far as there is room."""
    if count <= 4:
        return list(combinations(range(count), 2))
    return [(i, i + 1) for i in range(min(count - 1, PLANES))]


def _noted(panels: list[Panel], note: str) -> list[Panel]:
    return [panel._replace(note=note) for panel in panels]


def _flat_panels(real: np.ndarray, names: Sequence[str] = (), jitter: float = 0.0) -> list[Panel]:
    """A histogram of one coordinate, planes of up to four, the principal plane of more."""
    count = real.shape[1]
    if count == 1:
        return _histograms(real, names, whole=jitter > 0)
    if count > 4:
        return _principal_panels(real)
    spans = [_span(column) for column in real.T]
    how: dict[str, Any] = {"spans": spans, "names": _numbered(names, count, "x"), "jitter": jitter}
    return [Panel(partial(_plane, pair=pair, **how)) for pair in _pairs(count)]


def _principal_panels(real: np.ndarray) -> list[Panel]:
    """The plane of the data's first two principal components."""
    mean = real.mean(0)
    vectors = np.linalg.svd(real - mean, full_matrices=False)[2][:2].T
    spans = [_span(column) for column in ((real - mean) @ vectors).T]
    names = ["first principal component", "second principal component"]
    how: dict[str, Any] = {"pair": (0, 1), "spans": spans, "names": names, "jitter": 0.0}
    panel = Panel(lambda axes, x: _plane(axes, (x - mean) @ vectors, **how))
    return _noted([panel], f"the plane of two of {real.shape[1]} principal components")


def _count_panels(real: np.ndarray, names: Sequence[str] = ()) -> list[Panel]:
    """Counts as other coordinates; a square number of them, 25 or more, as little images."""
    side = round(real.shape[1] ** 0.5)
    if side < 5 or side * side != real.shape[1]:
        return _flat_panels(real, names, jitter=0.3)
    return [Panel(partial(_squares, side=side, top=float(np.quantile(real, 0.995)) or 1.0))]


def _through(change: Callable, real: np.ndarray, names: Sequence[str]) -> list[Panel]:
    """Histograms of the states after a change of coordinates."""
    after = lambda draw: lambda axes, x: draw(axes, change(x))
    return [p._replace(draw=after(p.draw)) for p in _histograms(change(real), names)]


def _normal(x: np.ndarray) -> np.ndarray:
    return np.arcsinh(x[:, 1:])


def _sphere_panels(real: np.ndarray, names: Sequence[str] = ()) -> list[Panel]:
    return [Panel(_sphere, "mollweide")] if real.shape[1] == 3 else _flat_panels(real, names)


def _torus_panels(real: np.ndarray, names: Sequence[str] = ()) -> list[Panel]:
    count = real.shape[1]
    names = _numbered(names, count, "angle")
    if count == 1:
        return _through(np.degrees, real, names)
    panels = [Panel(partial(_torus, pair=pair, names=names)) for pair in _pairs(count)]
    pairs = count * (count - 1) // 2
    if len(panels) == pairs:
        return panels
    seen = "all" if count <= PLANES + 1 else f"the first {PLANES + 1} of"
    return _noted(panels, f"{seen} {count} angles, in {len(panels)} of {pairs} pairs")


def _simplex_panels(real: np.ndarray, names: Sequence[str] = ()) -> list[Panel]:
    count = real.shape[1]
    if count == 2:
        return _histograms(real[:, :1], names[:1])
    names = [
        *_numbered(names, count, "x")[:2],
        _numbered(names, 3, "x")[2] if count == 3 else "rest",
    ]
    panels = [Panel(lambda axes, x: _simplex(axes, x, names))]
    return panels if count == 3 else _noted(panels, f"two of {count} parts, the rest summed")


def _hyperbolic_panels(real: np.ndarray, names: Sequence[str] = ()) -> list[Panel]:
    dim = real.shape[1] - 1
    if dim == 1:
        return _through(_normal, real, names)
    return _noted([Panel(_disc)], f"two of {dim} coordinates" if dim > 2 else "")


def _part(name: str, panels: list[Panel]) -> list[Panel]:
    inside = lambda draw: lambda axes, x: draw(axes, x[name])
    return [panel._replace(draw=inside(panel.draw)) for panel in panels]


def _table_panels(real: Any, names: Any = ()) -> list[Panel]:
    named = lambda part: names[part] if names else ()
    classes = _numbered(named("classes"), real["classes"].shape[1], "class")
    bars = [_of_column(_bars, i, real["classes"], name=n) for i, n in enumerate(classes)]
    numbers = _histograms(real["numeric"], named("numeric"))
    return _part("classes", bars) + _part("numeric", numbers)


def _pose_panels(real: Any, names: Any = ()) -> list[Panel]:
    turned = _part("rotation", [Panel(_rotations, "mollweide")])
    return turned + _part("position", _flat_panels(real["position"]))


# kind -> (data [n, *S], names of the coordinates) -> panels
PANELS: dict[str, Callable[..., list[Panel]]] = {
    "sphere": _sphere_panels,
    "rotations": lambda real, names=(): [Panel(_rotations, "mollweide")],
    "torus": _torus_panels,
    "simplex": _simplex_panels,
    "hyperbolic": _hyperbolic_panels,
    "euclidean": _flat_panels,
    "half_line": _flat_panels,
    "counts": _count_panels,
    "table": _table_panels,
    "poses": _pose_panels,
}
