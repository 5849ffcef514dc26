"""`python -m gmjax.main --config=FILE[:PRESET] [--config.KEY=VALUE ...] [--workdir=DIR]`.

Trains, evaluates, samples and reports; `--config.mode=evaluate` or `sample` work from the newest
checkpoint. Exit codes: 0 done; 2 a mistake in what was asked, named in one line; 1 training
failed; 143 or 130 stopped by a signal with everything saved.
"""

import json
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from gmjax.types import UserError

MODES = ("train", "evaluate", "sample")


def run(config, directory: Path) -> None:
    """One job, from a resolved configuration to the table at its end."""
    # Late, so that flags are parsed and processes are joined before JAX looks for devices.
    from gmjax import data, methods, reporting
    from gmjax.data import batches
    from gmjax.training import loop, workdir

    if config.mode not in MODES:
        raise UserError(f"config.mode={config.mode!r} is unknown; valid: {', '.join(MODES)}")
    loop.check(config)
    for key in ("times", "batch_size"):
        if config.evaluate[key] < 1:
            raise UserError(f"config.evaluate.{key}={config.evaluate[key]} must be at least 1")
    dataset = data.load(config.data)
    method = methods.build(config, dataset.spec)
    mesh = loop.compile(method, config).mesh
    directory = workdir.prepare(directory, config, create=config.mode == "train")
    evaluate = reporting.evaluator(method, dataset, config, mesh)
    if config.mode == "train":
        batch = batches.batcher(
            dataset.train, config.train.batch_size, config.seed, config.train.workers
        )
        state = loop.train(
            method, batch, config, directory, lambda s, _: evaluate(s), "bits_per_dim"
        )
    else:
        _, state = loop.load(method, config, directory)
    written = directory / reporting.RESULTS
    results = json.loads(written.read_text()) if written.exists() else {}
    step = int(state.step)
    if config.mode == "train" and results.get("step") == step:
        print(f"{directory} is done: {step} steps, reported before")
        reporting.show(results, directory)
        return
    figures = {"step": step, **evaluate(state)}
    if config.mode == "evaluate":
        results = {**results, **figures}
        workdir.write(written, json.dumps(results, indent=2, sort_keys=True) + "\n")
    else:
        results = reporting.sample_and_report(
            method, state, dataset, config, mesh, directory, figures
        )
    reporting.show(results, directory)


def parse(argv: list[str]) -> flags.FlagValues:
    """The command line as flags.

    Raises:
        UserError: a flag or a configuration key that does not exist or does not fit.
    """
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
            raise UserError("--config is missing; valid: configs/discrete_diffusion.py[:PRESET]")
        values.config.to_dict()  # a file that could not be read says so only when it is used
    except UserError:
        raise
    except Exception as error:  # ml_collections raises what it meets, from KeyError to OSError
        raise UserError(one_line(error)) from error
    return values


def one_line(error: BaseException) -> str:
    """The message of an error, or of the `UserError` behind it, on one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    text = str(error.args[0] if error.args else error)
    return " ".join(text.split())[:600]


def default_workdir(name: str) -> Path:
    """runs/CONFIG, or runs/CONFIG-PRESET: `configs/a.py:b` -> runs/a-b."""
    path, _, preset = name.partition(":")
    return Path("runs") / "-".join(filter(None, (Path(path).stem, preset)))


def main(argv: list[str]) -> int:
    """Parses the command line and runs the job; returns the exit code."""
    try:
        values = parse(argv)
        from gmjax.training import monitors, sharding

        sharding.initialize(values.coordinator, values.num_processes, values.process_id)
        name = values["config"].config_filename
        try:
            run(values.config, Path(values.workdir or default_workdir(name)))
        except monitors.TrainingError as error:
            print(f"training failed: {one_line(error)}", file=sys.stderr)
            return 1
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
