"""Timing on a machine that others use too.

The functions to compare run in turn, round after round, and each round gives one ratio; slow
spells of the machine then hit both sides of a ratio, and its median and quartiles say how far to
trust it. Compilation is timed apart and never counts.
"""

import csv
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table


class Program(NamedTuple):
    """A compiled function of fixed arguments."""

    run: Callable[[], Any]  # one call, to its end
    compile_s: float
    temp_mib: float  # the compiler's temporary buffers, MiB


class Row(NamedTuple):
    """One line of the report: `what` against `against`."""

    target: str
    shape: str  # B x D x S
    chain: str
    what: str
    against: str
    ms: float  # medians, per call or per step
    against_ms: float
    ratio: float  # median of the rounds
    low: float  # quartiles
    high: float
    goal: str
    met: str  # yes, no, or nothing where there is no goal
    compile_s: float
    temp_mib: float
    against_temp_mib: float


def compiled(function: Callable, *args: Any, donate: bool = False) -> Program:
    """Compile `function` for `args`.

    Args:
        function: of arrays.
        args: its arguments.
        donate: the first argument is a state, replaced by the first result of every call.
    """
    start = time.perf_counter()
    program = jax.jit(function, donate_argnums=(0,) if donate else ()).lower(*args).compile()
    seconds = time.perf_counter() - start
    stats = program.memory_analysis()
    temp = stats.temp_size_in_bytes / 2**20 if stats else math.nan
    held = list(args)

    def run():
        out = jax.block_until_ready(program(*held))
        if donate:
            held[0] = out[0]
        return out

    return Program(run, seconds, temp)


def interleaved(
    runs: dict[str, Callable[[], Any]], repeats: int, shortest: float = 0.05
) -> dict[str, np.ndarray]:
    """Seconds a call of every function, taken in turn: {name: [repeats]}.

    Args:
        runs: name -> a function that returns when its work is done.
        repeats: rounds. The first function rotates from one to the next.
        shortest: seconds; a function that is faster is called several times a round.
    """
    calls = {}
    for name, run in runs.items():
        calls[name] = 1
        for _ in range(2):  # the first call also fills caches; a long one is not repeated
            start = time.perf_counter()
            run()
            taken = time.perf_counter() - start
            if taken > 10 * shortest:
                break
            calls[name] = max(1, math.ceil(shortest / taken))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for i in range(repeats):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            for _ in range(calls[name]):
                runs[name]()
            seconds[name].append((time.perf_counter() - start) / calls[name])
    return {name: np.asarray(s) for name, s in seconds.items()}


def compare(above: np.ndarray, below: np.ndarray) -> tuple[float, float, float]:
    """Median, lower and upper quartile of the rounds' ratios above / below."""
    low, median, high = np.percentile(above / below, [25, 50, 75])
    return float(median), float(low), float(high)


def write(rows: Iterable[Row], path: Path) -> None:
    """The rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        for row in rows:
            writer.writerow([f"{v:.5g}" if isinstance(v, float) else v for v in row])


def show(rows: Sequence[Row], console: Console) -> None:
    """The rows as a table."""
    console = Console(width=max(console.width, 140))  # also where the output is a file
    table = Table("target", "B x D x S", "chain", "what", "ms", "against", "ms", "ratio", "goal")
    table.add_column("temp MiB", justify="right")
    for r in rows:
        ratio = f"{r.ratio:.3g} ({r.low:.3g} - {r.high:.3g})"
        colour = {"yes": "[green]", "no": "[red]"}.get(r.met, "")
        temp = f"{r.temp_mib:.0f}, {r.against_temp_mib:.0f}"
        table.add_row(
            r.target, r.shape, r.chain, r.what, f"{r.ms:.4g}", r.against, f"{r.against_ms:.4g}",
            colour + ratio, r.goal, temp,
        )  # fmt: skip
    console.print(table)
