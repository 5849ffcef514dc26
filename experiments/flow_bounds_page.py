"""The figure of `flow_matching_bounds`: four panels."""

from pathlib import Path

import numpy as np

from experiments import page

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#999933")


def figure(rows, path: Path) -> None:
    """Draws all panels: PNG and PDF."""
    with page.figure(path, 1, 4, (14, 3.7)) as (_, axes):
        _size(axes[0], [r for r in rows if r.panel == "size"])
        _noise(axes[1], [r for r in rows if r.panel == "noise" and r.family == "interpolant"])
        _flows(axes[2], [r for r in rows if r.panel == "noise" and r.family != "interpolant"])
        _both(axes[3], [r for r in rows if r.panel == "both"])
        page.letter(axes)


def _size(ax, rows):
    marks = {"interpolant": "-", "vp": "--", "ve": ":"}
    kinds = dict.fromkeys((r.law, r.model) for r in rows)
    for colour, (law, model) in zip(COLOURS, kinds, strict=False):
        for family in dict.fromkeys(r.family for r in rows):
            own = [r for r in rows if (r.family, r.law, r.model) == (family, law, model)]
            x = np.array([r.eps for r in own])
            ax.plot(
                x, [r.value / r.eps for r in own], "o" + marks[family], ms=3, lw=1, color=colour
            )
        name = {"modes": "", "gaussian": f", Gaussian d = {own[0].dim}", "plane": ", plane"}[law]
        ax.plot([], [], color=colour, lw=3, label=model + name)
    modes = [r for r in rows if r.model == "constant"]
    for family in dict.fromkeys(r.family for r in rows):
        own = [r for r in modes if r.family == family]
        x = np.array([r.eps for r in own])
        ax.plot(x, [r.bound / r.eps for r in own], marks[family], lw=1.5, color="black")
        ax.plot([], [], marks[family], color="grey", label=family)
    ax.plot([], [], color="black", lw=1.5, label="T1, modes")
    title = rf"two modes, $\gamma_{{\min}}$ = {rows[0].small:g}"
    ax.set(xscale="log", yscale="log", ylabel=r"$W_2 / \varepsilon$", title=title)
    ax.set_xlabel(r"error of the velocity $\varepsilon$")
    ax.set_ylim(None, 30 * max(r.bound / r.eps for r in modes))
    ax.legend(loc="upper left", ncols=2, fontsize=6)


def _curves(ax, rows, key, label):
    for colour, kind in zip(COLOURS, dict.fromkeys(key(r) for r in rows), strict=False):
        own = [r for r in rows if key(r) == kind]
        x = [1 / r.small for r in own]
        ax.plot(x, [r.value for r in own], "o-", ms=3, lw=1.1, color=colour, label=label(own[0]))
        ax.plot(x, [r.bound for r in own], ":", lw=1, color=colour)
    ax.set(xscale="log", yscale="log", xlabel=r"$1 / \gamma_{\min}$")
    ax.set_ylabel(r"$\int L^*_t\,dt$")
    ax.set_ylim(None, 100 * max(r.bound for r in rows))


def _noise(ax, rows):
    def label(r):
        return "subspace" if r.law == "subspace" else rf"$R / \sigma$ = {r.ratio:g}"

    _curves(ax, rows, lambda r: (r.law, r.ratio), label)
    ax.set_title("interpolant; dotted: T2")
    ax.legend(loc="upper left", fontsize=6, ncols=2)


def _flows(ax, rows):
    chosen = [r for r in rows if r.ratio in (1.0, 4.0)]  # at 0 a standard normal stands still
    _curves(
        ax,
        chosen,
        lambda r: (r.family, r.ratio),
        lambda r: rf"{r.family}, $R / \sigma$ = {r.ratio:g}",
    )
    ax.set_title("VP and VE flows; dotted: the theorem")
    ax.legend(loc="upper left", fontsize=6, ncols=2)


def _both(ax, rows):
    ratio = max(r.ratio for r in rows)
    own = [r for r in rows if r.ratio == ratio]
    for colour, eps in zip(COLOURS, dict.fromkeys(r.eps for r in own), strict=False):
        line = sorted((r.small, r.value, r.bound) for r in own if r.eps == eps)
        small, value, bound = np.array(line).T
        label = rf"$\varepsilon$ = {eps:g}"
        ax.plot(small, value, "o-", ms=3, lw=1.1, color=colour, label=label)
        ax.plot(small, bound, ":", lw=1, color=colour)
        i = value.argmin()
        ax.plot(small[i], value[i], "*", ms=10, color=colour)
    ax.set(xscale="log", yscale="log", xlabel=r"$\gamma_{\min}$", ylabel=r"$W_2$ to the data")
    ax.set_ylim(0.5 * min(r.value for r in own), 1e3 * max(r.value for r in own))
    ax.set_title(rf"$R / \sigma$ = {ratio:g}, worst error; dotted: T1 + $\gamma_{{\min}}$")
    ax.legend(loc="upper left", fontsize=6, ncols=2)
