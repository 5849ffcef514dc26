"""`python -m gmjax.main --config=FILE[:PRESET] [--config.KEY=VALUE ...] [--workdir=DIR]`.

Trains, evaluates, samples and reports; `--config.mode=evaluate` or `sample` work from the newest
checkpoint. Exit codes: 0 done; 2 a mistake in what was asked, named in one line; 1 training
failed; 143 or 130 stopped by a signal with everything saved.
"""

import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from gmjax.types import UserError

OVERRIDE = re.compile(r"--?(no)?config\.")
MODES = ("train", "evaluate", "sample")


def run(config, directory: Path) -> None:
    """One job, from a resolved configuration to the table at its end."""
    # Late, so that flags are parsed and processes are joined before JAX looks for devices.
    import jax

    from gmjax import data, methods, reporting
    from gmjax.data import batches
    from gmjax.training import loop, workdir

    if config.mode not in MODES:
        raise UserError(f"config.mode={config.mode!r} is unknown; valid: {', '.join(MODES)}")
    loop.check(config)
    for key in ("times", "batch_size"):
        if config.evaluate[key] < 1:
            raise UserError(f"config.evaluate.{key}={config.evaluate[key]} must be at least 1")
    if config.evaluate.limit < 0:
        raise UserError(f"config.evaluate.limit={config.evaluate.limit} must be 0 (all) or more")
    dataset = data.load(config.data)
    for note in dataset.notes if jax.process_index() == 0 else ():
        print(note, file=sys.stderr, flush=True)
    method = methods.build(config, dataset.spec)
    reporting.check(method, dataset, config)
    if config.mode == "train":
        reporting.rehearse(method, dataset, config)
        batch = batches.batcher(
            dataset.train, config.train.batch_size, config.seed, config.train.workers
        )
    mesh = loop.compile(method, config).mesh
    evaluate = reporting.evaluator(method, dataset, config, mesh)
    with ExitStack() as hold:
        directory = workdir.prepare(directory, config, config.mode == "train", hold)
        if config.mode == "train":
            criterion = reporting.criterion(dataset.spec, config)
            judge = lambda state, step: evaluate(state)
            state = loop.train(method, batch, config, directory, judge, criterion)
        else:
            _, state = loop.load(method, config, directory)
        reporting.finish(method, state, dataset, config, mesh, directory, evaluate)


def parse(argv: list[str]) -> flags.FlagValues:
    """The command line as flags.

    Raises:
        UserError: a flag or a configuration key that does not exist or does not fit.
    """
    plain = [word for word in argv if not OVERRIDE.match(word)]
    config = _flags(plain).config
    asked = set()
    for word in argv:
        if OVERRIDE.match(word):
            key = word.lstrip("-").partition("=")[0]
            check_key(config, key)
            asked.add(key)
    values = _flags(argv)
    if "config.data.name" in asked:
        yield_to(values.config.data, {key.rpartition(".")[2] for key in asked})
    return values


def yield_to(section: ConfigDict, asked: set[str]) -> None:
    """Unsets what a preset says of its own data set where another one was asked for.

    Args:
        section: `config.data`.
        asked: the keys that the command line gives, which stay, to be refused if they do not fit.
    """
    from gmjax import data

    if section.name not in data.DATASETS:
        return
    known = data.defaults(section.name)
    for key in section:
        if key not in known and key not in asked:
            section[key] = None


def check_key(config: ConfigDict, key: str) -> None:
    """Raises `UserError` unless `key`, such as config.train.steps, is in the configuration."""
    place: Any = config
    for name in key.split(".")[1:]:
        if not isinstance(place, ConfigDict) or name not in place:
            valid = ", ".join(sorted(place)) if isinstance(place, ConfigDict) else "no further key"
            raise UserError(f"{key} is unknown: no {name!r} there; valid: {valid}")
        place = place.get(name)


def _jobs() -> str:
    """The files that `--config` takes."""
    found = sorted(path.as_posix() for path in Path("configs").glob("*.py"))
    jobs = [name for name in found if "def get_config" in Path(name).read_text()]
    return f"{', '.join(jobs) or 'a file of configurations'}, each with [:PRESET]"


def _check_file(argv: list[str]) -> None:
    """Raises `UserError` where `--config` names no Python file with a `get_config`."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        if flag not in ("--config", "-config"):
            continue
        path = Path((value if equals else following).partition(":")[0])
        try:
            fits = path.suffix == ".py" and "get_config" in path.read_text()
        except (OSError, ValueError):
            fits = False
        if not fits:
            raise UserError(f"--config={path} is no file of configurations; valid: {_jobs()}")


def _flags(argv: list[str]) -> flags.FlagValues:
    _check_file(argv)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "FILE[:PRESET]", flag_values=values, sys_argv=argv
    )
    flags.DEFINE_string("workdir", None, "default: runs/CONFIG[-PRESET]", flag_values=values)
    flags.DEFINE_string("coordinator", None, "host:port of process 0, or auto", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "of this run", flag_values=values)
    flags.DEFINE_integer("process_id", None, "of this process", flag_values=values)
    try:
        rest = values(argv)
        if len(rest) > 1:
            raise UserError(f"{rest[1]!r} is no flag; valid: --config, --config.KEY, --workdir")
        if values.config is None:
            raise UserError(f"--config is missing; valid: {_jobs()}")
        values.config.to_dict()  # a file that could not be read says so only when it is used
    except UserError:
        raise
    except Exception as error:  # ml_collections raises what it meets, from KeyError to OSError
        raise UserError(one_line(error)) from error
    return values


# What Python says of a flag of another type, and what a person is told.
WORDS = {
    r"invalid literal for int\(\).*": "valid: a whole number",
    r"could not convert string to float.*": "valid: a number",
    r"\('Non-boolean argument to boolean flag'.*": "valid: true, false",
}


def one_line(error: BaseException) -> str:
    """The message of an error on one line; of a quoted traceback, what it ends with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if any(line.startswith("Traceback") for line in lines) else " ".join(lines)
    text = text.rpartition("UserError: ")[2]
    for words, valid in WORDS.items():
        text = re.sub(words, valid, text)
    return text


def default_workdir(name: str) -> Path:
    """runs/CONFIG, or runs/CONFIG-PRESET: `configs/a.py:b` -> runs/a-b."""
    path, _, preset = name.partition(":")
    return Path("runs") / "-".join(filter(None, (Path(path).stem, preset)))


def main(argv: list[str]) -> int:
    """Parses the command line and runs the job; returns the exit code."""
    try:
        values = parse(argv)
        from gmjax.training import checkpoints, monitors, sharding

        checkpoints.hush()
        sharding.initialize(values.coordinator, values.num_processes, values.process_id)
        name = config_flags.get_config_filename(values["config"])
        try:
            run(values.config, Path(values.workdir or default_workdir(name)))
        except (monitors.TrainingError, OSError) as error:
            print(f"training failed: {one_line(error)}", file=sys.stderr)
            return 1
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by a signal; the same command goes on from what is saved", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
