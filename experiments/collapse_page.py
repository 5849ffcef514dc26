"""The figure of `experiments.weight_collapse`: gaps against N and histograms of weights."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments import page

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7")
SHADES = ("#000000", "#0072b2", "#009e73", "#e69f00", "#d55e00")
SHOWN = 3  # dimensions a family


def figure(rows: Sequence[Any], shares: Mapping[tuple, np.ndarray], path: Path) -> None:
    """A line of panels a family, each dimension a panel, then the weights: PNG and PDF.

    Args:
        rows: of `weight_collapse.Row`.
        shares: (codes, alpha, "start" or "trained") -> normalised weights.
    """
    from matplotlib.lines import Line2D

    families = list(dict.fromkeys(r.family for r in rows))
    lines = len(families) + 1
    with page.figure(path, lines, SHOWN, (9.5, 2.4 * lines), squeeze=False) as (fig, axes):
        for line, family in zip(axes, families, strict=False):
            own = [r for r in rows if r.family == family]
            dims = list(dict.fromkeys(r.dims for r in own))[:SHOWN]
            for ax, d in zip(line, dims, strict=False):
                _gaps(ax, [r for r in own if r.dims == d])
                what = "codes" if family == "autoencoder" else "$d$ ="
                ax.set_title(f"{family}, {what} {d}", fontsize=9)
            for ax in line[len(dims) :]:
                ax.set_visible(False)
            line[0].set_ylabel("gap to $\\log p(x)$, nats")
        for ax in axes[-2]:
            ax.set_xlabel("particles $N$")
        alphas = list(dict.fromkeys(alpha for _, alpha, _ in shares))[:SHOWN]
        for ax, alpha in zip(axes[-1], alphas, strict=False):
            _weights(ax, {k: v for k, v in shares.items() if k[1] == alpha})
            ax.set_title(rf"weights of the autoencoders, $\alpha = {alpha:g}$", fontsize=9)
        for ax in axes[-1][len(alphas) :]:
            ax.set_visible(False)
        axes[-1, 0].set_ylabel("density")
        axes[-1, 0].legend(fontsize=7, title="codes", title_fontsize=7)
        orders = list(dict.fromkeys(r.alpha for r in rows))
        mark = partial(Line2D, [], [])
        handles = [
            mark(color=c, label=rf"$\alpha = {a:g}$") for a, c in zip(orders, COLOURS, strict=False)
        ]
        handles += [
            mark(color="grey", marker="o", ms=3, ls="", label="measured"),
            mark(color="grey", ls="-", lw=0.8, label="limit"),
            mark(color="grey", ls=":", label="$1/N$"),
            mark(color="grey", ls="--", label="collapse"),
            mark(color="grey", ls="-.", lw=0.8, label="collapse, sharp"),
        ]
        fig.legend(handles=handles, loc="outside upper center", ncols=9, fontsize=7)


def _gaps(ax, rows):
    for alpha, colour in zip(dict.fromkeys(r.alpha for r in rows), COLOURS, strict=False):
        own = [r for r in rows if r.alpha == alpha]
        n = [r.n for r in own]
        ax.errorbar(
            n, [r.gap for r in own], [2 * r.error for r in own], fmt="o", ms=3, color=colour
        )
        ax.axhline(own[0].limit, color=colour, lw=0.8)
        ax.plot(n, [r.expansion for r in own], ":", color=colour, lw=1.2)
        ax.plot(n, [r.collapse for r in own], "--", color=colour, lw=1.2)
        ax.plot(n, [r.sharp for r in own], "-.", color=colour, lw=0.8)
    values = [v for r in rows for v in (r.gap, r.limit)]
    low, high = min(values), max(values)
    room = 0.15 * (high - low)
    ax.set(xscale="log", ylim=(low - room, high + room))


def _weights(ax, shares):
    edges = np.linspace(-12, 0, 49)
    codes = list(dict.fromkeys(latent for latent, _, _ in shares))
    for latent, colour in zip(codes, SHADES, strict=False):
        for when, line in (("start", ":"), ("trained", "-")):
            v = next(v for k, v in shares.items() if (k[0], k[2]) == (latent, when))
            logs = np.clip(np.log10(np.maximum(v, 1e-30)), edges[0], 0)
            density, _ = np.histogram(logs, edges, density=True)
            label = f"{latent}" if when == "trained" else None
            ax.stairs(density, edges, ls=line, color=colour, lw=1.2, label=label)
    ax.set(yscale="log", ylim=(1e-4, None), xlabel="$\\log_{10}$ weight (dotted: untrained)")
