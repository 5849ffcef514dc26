"""What every experiment leaves: a table, a figure and its verdicts; and its command line."""

import argparse
import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments import verdict
from experiments.measure import Fit

STYLE: dict = {
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,
}


def table(path: Path, rows: Sequence[Any]) -> None:
    """A CSV of records of one kind, their fields the header; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0]._fields)
        writer.writerows(rows)


def say(out: Path, lines: list[str]) -> list[str]:
    """Writes the verdicts and their count to `out`; the lines written."""
    lines = [*lines, verdict.summary(lines)]
    (out / "verdicts.txt").write_text("\n".join(lines) + "\n")
    return lines


@contextmanager
def figure(
    path: Path, rows: int, columns: int, size: tuple[float, float], **options
) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes in one style, saved when the block ends.

    Args:
        path: without a suffix.
        size: width and height, inches.
        options: of `Figure.subplots`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=size, layout="constrained")
        yield fig, fig.subplots(rows, columns, **options)
        save(fig, path)


def save(fig: Any, path: Path) -> None:
    """PNG and PDF."""
    for suffix in (".png", ".pdf"):
        fig.savefig(path.with_suffix(suffix), dpi=200)


def letter(axes: Iterable[Any]) -> None:
    """(a), (b), ... before the titles, which go to the left."""
    for name, ax in zip("abcdefghijkl", axes, strict=False):
        title = ax.get_title()
        ax.set_title("")
        ax.set_title(f"({name}) {title}", fontsize=8.5, loc="left")


def interval(fit: Fit) -> str:
    """An exponent and its interval in words."""
    return f"a = {fit.slope:.3f} [{fit.low:.3f}, {fit.high:.3f}]"


def command(
    name: str, run: Callable[[Any, Path], list[str]], presets: Mapping[str, Any], doc: str | None
) -> None:
    """The command line of an experiment: runs a preset and prints what it said.

    Args:
        run: (preset, folder) -> lines.
        doc: of the module; its first line is the help.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--preset", choices=presets, default="default")
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help="folder")
    given = parser.parse_args()
    print(*run(presets[given.preset], given.out), f"written to {given.out}", sep="\n")
