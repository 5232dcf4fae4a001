"""What `qaudio train|crossval|fit|validate|test` do."""

from typing import Any

from qaudio.errors import EntryError
from qaudio.evaluation.bootstrap import summarise
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.result import Result
from qaudio.training.baselines import beside_baselines, scored
from qaudio.training.bf16 import fast_bf16
from qaudio.training.checkpoints import start
from qaudio.training.choice import prepared
from qaudio.training.cli import parse
from qaudio.training.crossval import CrossValidation, refuse_checkpoint
from qaudio.training.recipe import scored_data
from qaudio.training.run import TrainingRun
from qaudio.training.scoring import held_out_logits
from qaudio.zoo.resolve import locate
from qaudio.zoo.store import entry_name, read_config, read_results

# What says which runs in crossval, and its like for one run.
RUNS_OF = (("--folds", "--data.fold"), ("--seeds", "--seed_everything"))


def main(subcommand: str, arguments: list[str]) -> int:
    """Run a training command; returns the exit code.

    Raises:
        EntryError: for what it refuses, such as `--ckpt_path` where an entry would be written:
            which clips those weights have seen is not known.
    """
    if subcommand == "test" and arguments and not arguments[0].startswith("-"):
        return test_entry(arguments[0], arguments[1:])
    if subcommand == "crossval":
        for several, one in RUNS_OF:
            if _given(arguments, one):
                raise EntryError(f"{one} is for train; crossval takes {several} [1,2]")
        CrossValidation(arguments).run()
        return 0
    for several, one in RUNS_OF:
        if _given(arguments, several):
            raise EntryError(f"{several} is for crossval; {subcommand} runs one: {one} N")
    run = prepared(arguments, command=subcommand)
    if subcommand in ("validate", "test"):
        evaluate(run, subcommand)
    elif run.trainer.fast_dev_run:  # type: ignore[attr-defined]
        run.try_out()
    elif subcommand == "train":
        train(run)
    else:
        fit(run)
    return 0


def train(run: TrainingRun) -> None:
    """One fold, scored and recorded."""
    refuse_checkpoint(run.config.ckpt_path)
    if run.validates:
        run.validate()
        return
    results = run.train()
    if results is None:  # another process writes
        return
    published = run.writer.publish()
    for line in [*beside_baselines(results), *([published] if published else [])]:
        print(line)


def fit(run: TrainingRun) -> None:
    """One fold, without a score."""
    seconds = run.fit(recorded=False)
    print(f"{seconds:.0f} s; checkpoint in {run.last}")
    if not run.config.ckpt_path:  # train refuses one
        does = "scores it" if run.validates else "scores it and writes the entry"
        print(f"`qaudio train` with the same arguments {does}")


def evaluate(run: TrainingRun, subcommand: Any) -> None:
    """Let Lightning score what was fitted, or a source entry as it is."""
    run.data.refuse_other("test" if subcommand == "test" else "validation")
    checkpoint = run.checkpoint()
    run.module.as_it_is = checkpoint is None
    with fast_bf16(run.trainer):
        start(run.trainer, subcommand, run.module, run.data, checkpoint)


def test_entry(source: str, arguments: list[str]) -> int:
    """Score an entry's weights on their held-out fold, from the audio files."""
    folder = locate(source)
    results = read_results(folder)
    if results is None or not (folder / "recipe.yaml").is_file():
        raise EntryError(f"{entry_name(folder)}: has no recipe and results to test against")
    if results.teaching:
        raise EntryError(
            f"{entry_name(folder)}: its score is agreement with {results.teaching.teacher} on "
            "unlabelled sound, which `test` does not ask again: `qaudio verify` computes it from "
            "the predictions, `qaudio probe` scores the entry on a benchmark"
        )
    grouped = _given(arguments, "--data.group_pattern")
    fold, seed = results.card_fold, results.card_seed
    cli = parse(
        arguments,
        {
            "model": {
                "class_path": "qaudio.Classifier",
                "init_args": {
                    "source": str(folder.absolute()),
                    "task": read_config(folder).task,
                },
            },
            "data": scored_data(folder, fold, grouped),
            "seed_everything": seed,
        },
    )
    fold, cli.model.as_it_is = cli.datamodule.fold, True
    logits = held_out_logits(cli.trainer, cli.model, cli.datamodule)
    predictions = Predictions.of_run(fold, seed, **logits)
    metric, name = results.result.metric, f"seed{seed}_fold{fold}"
    score = summarise(predictions, metric).runs[name]
    recorded = results.result.runs.get(name)
    print(f"{folder.name} {name}: {metric} {score}, recorded {recorded}")
    # Of two clips whose logits differ by rounding either may rank above the other.
    allowed = 1e-4 if metric == "mAP" else 0
    return 0 if recorded is not None and abs(score - recorded) <= allowed else 1


def resolved(arguments: list[str]) -> str:
    """The recipe that `train` would run, every default written out."""
    return parse(arguments).recipe(arguments, "train").text


def probe(arguments: list[str]) -> dict[str, Result]:
    """Results of the baselines of what `train` would fine-tune on a folder, without training it.

    Returns:
        By method, as in an entry's results.
    """
    cli = parse(arguments)
    run = TrainingRun(cli, cli.recipe(arguments, "train"))
    run.set_up()
    return scored(run.baselines(), run.module.task)


def _given(arguments: list[str], name: str) -> bool:
    return any(argument.split("=")[0] == name for argument in arguments)
