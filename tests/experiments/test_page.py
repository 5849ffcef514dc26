"""What an experiment leaves behind."""

import csv
import sys
from typing import NamedTuple

import pytest

from experiments import page
from experiments.measure import Fit


class Row(NamedTuple):
    name: str
    value: float


def test_the_table_and_the_verdicts_are_read_back(tmp_path):
    page.table(tmp_path / "new" / "rows.csv", [Row("a", 1.5), Row("b, c", 2.0)])
    with (tmp_path / "new" / "rows.csv").open() as file:
        assert list(csv.reader(file)) == [["name", "value"], ["a", "1.5"], ["b, c", "2.0"]]
    assert page.say(tmp_path, ["one", "two: holds"])[:2] == ["one", "two: holds"]
    assert (tmp_path / "verdicts.txt").read_text() == (
        "one\ntwo: holds\n1 holds, 0 do not, 0 undecided\n"
    )


def test_the_figure_is_saved_twice_and_the_style_is_left_behind(tmp_path):
    import matplotlib

    size = matplotlib.rcParams["font.size"]
    with page.figure(tmp_path / "figure", 1, 2, (4, 2)) as (_, axes):
        axes[0].set_title("left")
        page.letter(axes)
    assert axes[0].get_title(loc="left") == "(a) left"
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"
    assert (tmp_path / "figure.pdf").read_bytes()[:4] == b"%PDF"
    assert matplotlib.rcParams["font.size"] == size


def test_words():
    assert page.interval(Fit(1.0, 0.91, 1.0949)) == "a = 1.000 [0.910, 1.095]"


def test_the_command(tmp_path, monkeypatch, capsys):
    seen = []

    def run(preset, out):
        seen.append((preset, out))
        return ["said"]

    argv = ["NAME", "--preset", "smoke", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", argv)
    page.command("NAME", run, {"default": 1, "smoke": 2}, "A line.\n\nMore.")
    assert seen == [(2, tmp_path)]
    assert capsys.readouterr().out == f"said\nwritten to {tmp_path}\n"
    monkeypatch.setattr(sys, "argv", ["NAME", "--preset", "huge"])
    with pytest.raises(SystemExit):
        page.command("NAME", run, {"default": 1}, None)
    assert "invalid choice: 'huge'" in capsys.readouterr().err
