"""Rows, events and progress lines."""

import io
import json

import pytest
import rich.console

from gmjax.training import reports


def rows(folder):
    return [json.loads(line) for line in (folder / reports.METRICS).read_text().splitlines()]


def test_rows_and_events(tmp_path, capsys):
    with reports.report(tmp_path, 0, 4) as report:
        for step in (1, 2, 3, 4):
            report.progress(step, 0.5)
            report.trained(step, {"loss": 0.5 / step})
        report.evaluated(4, {"bits": 1.5})
        report.say("a word")
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 4]
    assert [row.get("loss") for row in found] == [0.5, 0.25, 0.5 / 3, 0.125, None]
    assert found[-1]["evaluate/bits"] == 1.5
    assert all("time" in row for row in found)
    assert ["steps_per_s" in row for row in found] == [False, True, True, True, False]
    errors = capsys.readouterr().err
    assert "a word" in errors and "step 4/4  loss 0.5" in errors and "steps/s" in errors
    (events,) = (tmp_path / "events").iterdir()
    assert b"evaluate/bits" in events.read_bytes()


@pytest.mark.parametrize(("step", "kept"), [(0, []), (1, [1]), (2, [1, 2, 2]), (9, [1, 2, 2, 3])])
def test_rows_beyond_the_restored_step_are_dropped(tmp_path, step, kept):
    path = tmp_path / reports.METRICS
    text = "".join(json.dumps({"step": s, "loss": 0.1}) + "\n" for s in (1, 2, 2, 3))
    path.write_text(text + '{"step": 2, "lo')
    reports.truncate(path, step)
    assert [row["step"] for row in rows(tmp_path)] == kept
    with reports.report(tmp_path, step, 10) as report:
        report.trained(step + 1, {"loss": 1.0})
    assert [row["step"] for row in rows(tmp_path)] == [*kept, step + 1]


def test_a_terminal_gets_a_bar():
    terminal = io.StringIO()
    console = rich.console.Console(file=terminal, force_terminal=True, width=120)
    with reports._bar(console, 10, 40) as (say, progress):
        progress(11, 0.25)
        progress(30, 0.125)
        say("a word")
    shown = terminal.getvalue()
    assert "30/40" in shown and "loss 0.125" in shown and "steps/s" in shown and "a word" in shown


def test_a_whole_file_is_left_alone(tmp_path):
    path = tmp_path / reports.METRICS
    path.write_text('{"step": 1}\n')
    before = path.stat().st_ino
    reports.truncate(path, 5)
    assert path.stat().st_ino == before
    reports.truncate(tmp_path / "none", 5)
    assert not (tmp_path / "none").exists()
