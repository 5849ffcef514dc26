"""What a run tells: rows in `metrics.jsonl`, TensorBoard events, and progress for a person."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from gmjax.training import workdir as workdirs

METRICS = "metrics.jsonl"
SECONDS = 10.0  # between plain lines where there is no terminal


class Report(NamedTuple):
    """Where the loop speaks."""

    say: Callable[[str], None]  # a line for a person
    trained: Callable[[int, Mapping[str, float]], None]  # (step, metrics) to the records
    evaluated: Callable[[int, Mapping[str, float]], None]  # (step, scores) to the records
    progress: Callable[[int, float], None]  # (step, loss), as often as one likes


@contextlib.contextmanager
def report(directory: Path, start: int, total: int) -> Iterator[Report]:
    """Opens the records of a run at step `start` of `total` and shows its progress.

    Rows beyond `start`, which a killed run wrote after its last checkpoint, are dropped: the
    resumed run writes them again.

    Args:
        directory: the work directory.
        start: steps done.
        total: steps to do.
    """
    if jax.process_index() != 0:
        yield Report(_nothing, _nothing, _nothing, _nothing)
        return
    from tensorboardX import SummaryWriter

    truncate(directory / METRICS, start)
    events = SummaryWriter(str(directory / "events"), purge_step=start + 1, flush_secs=10)
    with (directory / METRICS).open("a") as file, contextlib.ExitStack() as stack:
        stack.callback(events.close)
        say, show = stack.enter_context(_display(start, total))
        mark: tuple[int, float] | None = None  # where the speed of the next row counts from

        def row(step: int, values: Mapping[str, float]) -> None:
            file.write(json.dumps({"step": step, **values, "time": time.time()}) + "\n")
            file.flush()
            for name, value in values.items():
                events.add_scalar(name, value, step)

        def progress(step: int, loss: float) -> None:
            nonlocal mark
            mark = mark or (step, time.monotonic())  # the first step compiles, and is over
            show(step, loss)

        def trained(step: int, metrics: Mapping[str, float]) -> None:
            nonlocal mark
            now = time.monotonic()
            before, then = mark or (step, now)
            mark = step, now
            speed = {"steps_per_s": (step - before) / (now - then)} if step > before else {}
            row(step, {**metrics, **speed})

        def evaluated(step: int, scores: Mapping[str, float]) -> None:
            row(step, {f"evaluate/{name}": score for name, score in scores.items()})

        yield Report(say, trained, evaluated, progress)


def _nothing(*arguments: Any) -> None:
    """What the processes that do not report do."""


def truncate(path: Path, step: int) -> None:
    """Drops the rows beyond `step`, and a last row that was cut short.

    Args:
        path: of `metrics.jsonl`, which need not exist.
        step: the last step to keep.
    """
    if not path.exists():
        return
    text = path.read_text(errors="replace")
    lines = text.split("\n")
    kept = [line for line in lines if _step(line) <= step]
    if kept != lines[:-1] or lines[-1]:
        workdirs.write(path, "".join(f"{line}\n" for line in kept))


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`, without what is damaged; none where there is no such file."""
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return [json.loads(line) for line in lines if _step(line) < math.inf]


def _step(line: str) -> float:
    try:
        row = json.loads(line)
        numbers = all(isinstance(value, int | float) for value in row.values())
        return row["step"] if numbers else math.inf
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return math.inf


def read(path: Path) -> dict[str, Any]:
    """The figures of a report; none, with a line on stderr, where the file is damaged."""
    if not path.exists():
        return {}
    try:
        results = json.loads(path.read_text())
        settings = results.get("settings", {})
        figures = (value for name, value in results.items() if name != "settings")
        if isinstance(settings, dict) and all(isinstance(value, int | float) for value in figures):
            return results
    except (ValueError, AttributeError, RecursionError):
        pass
    print(f"{path} cannot be read and is made anew", file=sys.stderr, flush=True)
    return {}


def write(path: Path, results: dict[str, Any]) -> None:
    """Writes a report, whole or not at all."""
    workdirs.write(path, json.dumps(results, indent=2, sort_keys=True) + "\n")


@contextlib.contextmanager
def _display(start: int, total: int) -> Iterator[tuple[Callable, Callable]]:
    from rich.console import Console

    console = Console(stderr=True)
    with (_bar if console.is_terminal else _lines)(console, start, total) as display:
        yield display


@contextlib.contextmanager
def _bar(console: Any, start: int, total: int) -> Iterator[tuple[Callable, Callable]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    rate = _rate(start)
    columns = (
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[rate]} steps/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task("train", total=total, completed=start, loss="-", rate="-")

        def progress(step: int, loss: float) -> None:
            speed = rate(step)
            shown = f"{speed:.1f}" if speed else "-"
            bar.update(task, completed=step, loss=f"{loss:.4g}", rate=shown)

        yield bar.console.print, progress


@contextlib.contextmanager
def _lines(console: Any, start: int, total: int) -> Iterator[tuple[Callable, Callable]]:
    rate, last = _rate(start), time.monotonic()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    def progress(step: int, loss: float) -> None:
        nonlocal last
        speed = rate(step)
        if time.monotonic() - last < SECONDS and step < total:
            return
        last = time.monotonic()
        pace = f"  {speed:.1f} steps/s  {(total - step) / speed:.0f} s left" if speed else ""
        say(f"step {step}/{total}  loss {loss:.4g}{pace}")

    yield say, progress


def _rate(start: int) -> Callable[[int], float]:
    """Steps per second since the first step ended, so that compiling does not count."""
    began: tuple[int, float] | None = None

    def rate(step: int) -> float:
        nonlocal began
        now = time.monotonic()
        if began is None:
            began = step, now
            return 0.0
        return (step - began[0]) / max(now - began[1], 1e-9)

    return rate
