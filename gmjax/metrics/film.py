"""The reverse process as a film (GIF) and as a strip of stills (PNG).

A trajectory [N + 1, n, *S] from t = 1 to t = 0 becomes a stack of pictures [N + 1, H, W, 3], one
rendering a kind of data; the rest is captions. Undecided sites (values >= num_values) keep the
colour that `plots` gives them.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gmjax.metrics.plots import (
    INK,
    MASK,
    VOID,
    bare,
    canvas,
    colours,
    joint_histogram,
    save,
    tile,
    value_range,
)

WIDTH = 480  # pixels, about


def _images(x: np.ndarray, num_values: int, columns: int) -> np.ndarray:
    zoom = max(1, WIDTH // (columns * x.shape[3]))
    grid = lambda frame: tile(colours(frame, num_values), columns, zoom, max(1, zoom // 3))
    return np.stack([grid(frame) for frame in x])


def _sequences(x: np.ndarray, num_values: int, columns: int) -> np.ndarray:
    from matplotlib import colormaps

    cells = x.reshape(*x.shape[:2], -1)
    low, high = value_range(cells[-1], num_values)
    shade = colormaps["viridis"](np.clip((cells - low) / (high - low), 0.0, 1.0))
    picture = np.where((cells >= num_values)[..., None], VOID, 255.0 * shade[..., :3])
    across = max(1, WIDTH // cells.shape[2])
    return picture.round().astype(np.uint8).repeat(9, 1).repeat(across, 2)


def _planes(x: np.ndarray, num_values: int, columns: int) -> np.ndarray:
    from matplotlib import colormaps

    laws = np.stack([joint_histogram(frame, num_values) for frame in x])
    top = np.quantile(laws[-1], 0.999) or 1.0
    picture = colormaps["magma_r"](np.clip(laws[:, ::-1] / top, 0, 1))[..., :3] * 255.0
    zoom = max(1, WIDTH // num_values)
    return picture.round().astype(np.uint8).repeat(zoom, 1).repeat(zoom, 2)


# DataSpec.kind -> (x [T, n, *S], num_values, columns) -> [T, H, W, 3] uint8
RENDER: dict[str, Callable[..., np.ndarray]] = {
    "image": _images,
    "sequence": _sequences,
    "vector": _planes,
}


def _caption(picture: np.ndarray, time: float, done: float):
    """A PIL image: the picture, and under it the time and how far the run is."""
    from PIL import Image, ImageDraw, ImageFont

    height, width, _ = picture.shape
    image = Image.new("RGB", (width, height + 34), "white")
    image.paste(Image.fromarray(picture), (0, 0))
    pen = ImageDraw.Draw(image)
    pen.text((8, height + 7), f"t = {time:.2f}", fill=tuple(INK), font=ImageFont.load_default(16))
    start, end, middle = 90, width - 10, height + 18
    pen.line([(start, middle), (end, middle)], fill=(225, 225, 225), width=5)
    pen.line([(start, middle), (start + done * (end - start), middle)], fill=tuple(MASK), width=5)
    return image


def pick(total: int, count: int) -> np.ndarray:
    """At most `count` of 0 .. total - 1, evenly spaced, with both ends."""
    return np.unique(np.linspace(0, total - 1, min(total, count)).round().astype(int))


def film(
    path: str | Path,
    trajectory: np.ndarray,
    times: np.ndarray,
    num_values: int,
    kind: str = "image",
    side: int = 6,
    frames: int = 40,
) -> tuple[Path, Path]:
    """GIF of a trajectory, and beside it (same name, .png) a strip of stills.

    Args:
        path: of the GIF.
        trajectory: [N + 1, n, *S] integers, first state first; >= num_values: masked.
        times: [N + 1] the time of each state.
        num_values: S.
        kind: a name in `RENDER`. Images show side^2 examples, sequences 4 side, planes all.
        side: images a row.
        frames: at most so many, evenly spaced; the first and the last always.

    Returns:
        (path of the GIF, path of the PNG).
    """
    x, times = np.asarray(trajectory), np.asarray(times, np.float64)
    x = x[..., None] if kind == "image" and x.ndim == 4 else x
    shown = {"image": side * side, "sequence": 4 * side}.get(kind, x.shape[1])
    picked = pick(len(x), frames)
    pictures = RENDER[kind](x[picked, :shown], num_values, side)
    path = write(path, pictures, times[picked], picked / max(len(x) - 1, 1))
    return path, strip(path.with_suffix(".png"), x, times, num_values, kind)


def write(path: str | Path, pictures: np.ndarray, times: np.ndarray, done: np.ndarray) -> Path:
    """GIF of pictures [F, H, W, 3] uint8 over their times [F] and the share of the run done [F]."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [_caption(*frame) for frame in zip(pictures, times, done, strict=True)]
    durations = [500, *[80] * (len(rest) - 1), 2500][: 1 + len(rest)]
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0)
    return path


def strip(
    path: str | Path,
    trajectory: np.ndarray,
    times: np.ndarray,
    num_values: int,
    kind: str = "image",
    stills: int = 9,
    examples: int = 5,
) -> Path:
    """PNG: a few examples at a few times; arguments as for `film`.

    Args:
        path: of the PNG.
        trajectory, times, num_values, kind: as for `film`; images with a channel axis.
        stills: number of times.
        examples: number of images or sequences (planes show all).

    Returns:
        The path.
    """
    picked = pick(len(trajectory), 6 if kind == "sequence" else stills)
    shown = trajectory.shape[1] if kind == "vector" else examples
    pictures = RENDER[kind](trajectory[picked, :shown], num_values, 1)
    height, width = pictures.shape[1:3]
    if kind == "sequence":  # wide and flat: one below the other
        figure, axes = canvas(9.0, 0.3 + len(picked) * (9.0 * height / width + 0.35), len(picked))
    else:
        figure, axes = canvas(1.25 * len(picked), 1.25 * height / width + 0.4, 1, len(picked))
    for ax, picture, time in zip(axes.flat, pictures, times[picked], strict=True):
        ax.imshow(picture, interpolation="nearest", aspect="auto" if kind == "sequence" else None)
        bare(ax, f"t = {time:.2f}")
    return save(figure, path)
