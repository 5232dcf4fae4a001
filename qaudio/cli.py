"""The `qaudio` command. Exit codes: 0 fine, 1 failed with one clear line, 2 wrong usage."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qaudio import __version__
from qaudio.zoo.catalog import (
    DEFAULT_ENTRY,
    IMPORTERS,
    EntryError,
    entries,
    hosted,
    list_models,
    locate,
    read_config,
    read_json,
    read_results,
)

TRAINING = {
    "train": "fit one split, test it, write or extend the entry",
    "crossval": "train and test every fold that the entry lacks, then aggregate",
    "fit": "fit only (LightningCLI)",
    "validate": "score the validation split (LightningCLI)",
    "test": "score the test split; `qaudio test ENTRY --data.root PATH` checks a recorded score",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("qaudio: %(message)s"))
    logging.getLogger("qaudio").handlers = [handler]  # one, however often main() is called
    if arguments and arguments[0] in TRAINING and not {"-h", "--help"} & set(arguments[1:2]):
        return _guarded(lambda: _training(arguments[0], arguments[1:]))
    options = _parser().parse_args(arguments)
    return _guarded(lambda: options.run(options))


def _guarded(run: Callable[[], int]) -> int:
    """Turn what can go wrong into one line on stderr and exit code 1."""
    try:
        code = run()
        sys.stdout.flush()  # here, where a reader that went away is no error
        return code
    except KeyboardInterrupt:
        print("qaudio: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader went away (`qaudio list | head`); keep the interpreter from saying so again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (EntryError, ValueError, OSError) as error:
        return _failed(error)
    except Exception as error:
        # Known by name: importing them here would load torch for `qaudio list`.
        if type(error).__name__ in ("AudioError", "DataError", "MisconfigurationException"):
            return _failed(error)
        raise


def _failed(error: Exception) -> int:
    print(f"qaudio: {' '.join(str(error).split())}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qaudio",
        description="A model zoo of quaternion CNNs for audio classification.",
        epilog="example: qaudio predict your_file.wav",
    )
    parser.add_argument("--version", action="version", version=f"qaudio {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[..., int], help: str, example: str) -> Any:
        sub = commands.add_parser(
            name, help=help, description=help, epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    sub = command(
        "list", _list, "architectures and pretrained entries", "qaudio list 'qcnn10*' --pretrained"
    )
    sub.add_argument("pattern", nargs="?", default="*", help="shell-style pattern")
    sub.add_argument("--pretrained", action="store_true", help="only entries with weights")
    sub.add_argument("--benchmark", help="only entries of a benchmark, such as esc10")
    sub.add_argument("--json", action="store_true")

    sub = command("info", _info, "what is known of an entry", f"qaudio info {DEFAULT_ENTRY}")
    sub.add_argument("entry", help="name or folder")
    sub.add_argument("--json", action="store_true")

    sub = command(
        "predict", _predict, "the most probable classes of sound files",
        "qaudio predict your_file.wav --times",
    )  # fmt: skip
    sub.add_argument("files", nargs="*", help="sound files, or folders of them")
    sub.add_argument("--model", default=DEFAULT_ENTRY, help="entry name or folder (%(default)s)")
    sub.add_argument("--top-k", type=_positive, default=5, help="classes to show (%(default)s)")
    sub.add_argument("--window", type=float, help="seconds of each window (10)")
    sub.add_argument("--hop", type=float, help="seconds from window to window (half a window)")
    sub.add_argument("--times", action="store_true", help="add the rows of every window")
    sub.add_argument(
        "--demo", action="store_true", help="make a sound, qaudio-demo.wav, and predict on it"
    )
    sub.add_argument("--json", action="store_true", help="one JSON document a file")

    sub = command(
        "verify", _verify, "check entries: hashes, weights, scores, card",
        f"qaudio verify {DEFAULT_ENTRY}",
    )  # fmt: skip
    sub.add_argument("entry", nargs="*", help="names or folders")
    sub.add_argument("--all", action="store_true", help="every entry, MODEL_CARDS.md and README")
    sub.add_argument(
        "--write", action="store_true", help="with --all: write MODEL_CARDS.md and the table anew"
    )

    sub = command(
        "prune", _prune, "remove filters from an entry or architecture, without fine-tuning",
        "qaudio prune qcnn10_050.esc10 --ratio 0.5 --out my_pruned",
    )  # fmt: skip
    sub.add_argument("entry", help="name or folder")
    sub.add_argument("--out", required=True, help="folder of the new entry")
    sub.add_argument("--ratio", type=float, help="share of the filters to remove")
    sub.add_argument("--target-macs", type=float, help="share (≤ 1) or number of MACs to keep")
    sub.add_argument("--target-params", type=float, help="share or number of parameters to keep")
    sub.add_argument("--target-latency", type=float, help="share or milliseconds to keep, measured")
    sub.add_argument("--layers", default="all", help="all, published, blocksA-B or names")
    sub.add_argument("--criterion", default="l1", help="l1, l2, fpgm, random, … (%(default)s)")
    sub.add_argument("--allocation", choices=("uniform", "global"), default="uniform")
    sub.add_argument("--multiple-of", type=_positive, default=4)
    sub.add_argument("--min-channels", type=_positive, default=8)

    sub = command(
        "import", _import, "an entry from a checkpoint file that others published",
        "qaudio import panns Cnn14_mAP=0.431.pth --arch cnn14 --out cnn14.audioset",
    )  # fmt: skip
    sub.add_argument("importer", choices=IMPORTERS, help="whose code wrote it")
    sub.add_argument("file", help="the .pth file")
    sub.add_argument(
        "--arch", required=True, choices=[arch for known in IMPORTERS.values() for arch in known]
    )
    sub.add_argument("--out", required=True, help="folder of the new entry")
    sub.add_argument("--labels", help="AudioSet's class_labels_indices.csv, for class names")
    sub.add_argument("--license", help="of the weights, such as cc-by-4.0")

    for name, text in TRAINING.items():
        # Only listed here: main() hands these to LightningCLI.
        sub = command(
            name, lambda options: 0, text,
            f"qaudio {name} --config recipes/esc10/qcnn10_050.yaml --data.root data/ESC-50\n"
            f"every option: qaudio {name} --config RECIPE --help",
        )  # fmt: skip
        sub.add_argument("--config", help="recipe; any of its settings can be overridden")
        if name == "crossval":
            sub.add_argument("--folds", help="such as [1,2]; default: all")
            sub.add_argument("--seeds", help="such as [0,1,2]; default: [0]")
    return parser


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, not {text!r}")
    return value


def _list(options: argparse.Namespace) -> int:
    names = list_models(options.pattern, pretrained=options.pretrained, benchmark=options.benchmark)
    rows, shipped, others = [], entries(), hosted()
    for name in names:
        folder = shipped.get(name)
        row: dict[str, Any] = {"name": name, "pretrained": name in shipped or name in others}
        if folder is None and name in others:
            row |= {key: others[name][key] for key in ("license", "url", "citation")}
        if folder is not None:
            row["license"] = read_json(folder / "config.json")["license"]
            results = read_results(folder)
            if results is not None:
                row |= {
                    "metric": results["result"]["metric"],
                    "score": results["result"]["mean"],
                    "params": results["cost"]["params"],
                    "macs": results["cost"]["macs"],
                }
        rows.append(row)
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        about = "architecture, no weights"
        if row["pretrained"]:
            about = row["license"] or "licence not stated"
        if "url" in row:
            about = f"hosted by others, downloaded at first use  {about}"
        if "score" in row:
            about = (
                f"{row['metric']} {100 * row['score']:5.1f} %  {row['params'] / 1e3:8.1f} k params "
                f" {row['macs'] / 1e9:6.3f} GMACs  {about}"
            )
        print(f"{row['name']:32} {about}")
    if not rows:
        print(f"nothing matches {options.pattern!r}", file=sys.stderr)
    return 0 if rows else 1


def _info(options: argparse.Namespace) -> int:
    folder = locate(options.entry)
    config, results = read_config(folder), read_results(folder)
    if options.json:
        print(json.dumps({"config": config, "results": results}, indent=1))
        return 0
    print(f"{folder.name}: {config['architecture']}, {config['num_classes']} classes")
    rows = [("licence", config["license"] or "not stated")]
    if (folder / "source.json").is_file():
        source = read_json(folder / "source.json")
        rows += [(key, source[key]) for key in ("file", "url", "citation") if key in source]
    if config["labels"]:
        rows.append(("classes", ", ".join(config["labels"])))
    settings = config["frontend"]
    rows.append(("front-end", ", ".join(f"{key} {value}" for key, value in settings.items())))
    if results:
        from qaudio.zoo.card import facts

        rows += facts(results)
    for name, value in rows:
        print(f"  {name:14}{value}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    if not options.files and not options.demo:
        return _usage("predict", "give sound files, or --demo")
    if options.window is not None and not 0.05 <= options.window <= 3600:
        return _usage("predict", "--window must be 0.05 to 3600 seconds")
    if options.hop is not None and not 0 < options.hop <= (options.window or 10):
        return _usage("predict", "--hop must be above 0 and at most the window")
    from tqdm import tqdm

    from qaudio.data.audio import AudioError, display_name, info
    from qaudio.prediction import analyse
    from qaudio.zoo.entry import load

    files = list(options.files)
    if options.demo:
        from qaudio.data.demo import write_demo

        files.insert(0, str(write_demo("qaudio-demo.wav")))
    paths, failed = _sound_files(files)
    model = load(options.model)
    several = len(paths) + failed > 1
    # One bar, over files or over the seconds of a single one; none where stderr is no terminal.
    over_files, over_seconds = (None, True) if several else (True, None)
    for path in tqdm(paths, unit="file", delay=2, leave=False, disable=over_files):
        try:
            with tqdm(unit="s", delay=2, leave=False, disable=over_seconds) as bar:
                if not several:
                    bar.total = info(path).seconds

                def advance(seconds: float, bar: Any = bar) -> None:
                    bar.update(seconds - bar.n)

                analysis = analyse(
                    model, path, window=options.window, hop=options.hop, progress=advance
                )
        except AudioError as error:
            _say_failed(str(error))
            failed += 1
            continue
        top = analysis.clip(options.top_k)
        rows = analysis.rows(options.top_k) if options.times else []
        with tqdm.external_write_mode():
            if options.json:
                document = {"file": display_name(path), "predictions": [vars(p) for p in top]}
                if options.times:
                    document["times"] = [vars(p) for p in rows]
                print(json.dumps(document), flush=True)
                continue
            print(f"{display_name(path)}  ({Path(options.model).name})")
            for p in top:
                print(f"  {p.probability:6.1%}  {p.label}")
            if rows:
                print(f"  {'start':>8} {'end':>8}  label")
            for p in rows:
                print(f"  {p.start:8.2f} {p.end:8.2f}  {p.label} {p.probability:.1%}")
    return 1 if failed else 0


def _sound_files(arguments: list[str]) -> tuple[list[str], int]:
    """The files that arguments name, folders searched; and how many named nothing."""
    from qaudio.data.audio import sound_files

    paths, failed = [], 0
    for argument in arguments:
        if os.path.isdir(argument):
            found = [str(path) for path in sound_files(argument)]
            if not found:
                _say_failed(f"{argument}: a folder without sound files")
                failed += 1
            paths += found
        else:
            paths.append(argument)
    return paths, failed


def _say_failed(message: str) -> None:
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        print(f"qaudio: {message}", file=sys.stderr, flush=True)


def _verify(options: argparse.Namespace) -> int:
    from qaudio.zoo import card
    from qaudio.zoo.catalog import zoo_folder
    from qaudio.zoo.entry import verify

    if bool(options.entry) == options.all or (options.write and not options.all):
        return _usage("verify", "give entries, or --all [--write]")
    failed = 0
    for name in options.entry or list(entries()):
        try:
            print(f"{name}: " + "; ".join(verify(name)), flush=True)
        except EntryError as error:
            failed += 1
            _failed(error)
    top = zoo_folder().parent
    if not options.all or not (top / "pyproject.toml").is_file():
        return 1 if failed else 0
    for path, make in (
        (top / "MODEL_CARDS.md", lambda text: card.index()),
        (top / "README.md", card.readme_with_table),
    ):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        made = make(text)
        if options.write and made != text:
            path.write_text(made, encoding="utf-8")
            print(f"{path.name}: written")
        elif made != text:
            failed += 1
            _failed(EntryError(f"{path.name}: differs from what the entries' results give"))
        else:
            print(f"{path.name}: follows from the entries' results")
    return 1 if failed else 0


def _prune(options: argparse.Namespace) -> int:
    targets = {
        name: getattr(options, name)
        for name in ("ratio", "target_macs", "target_params", "target_latency")
    }
    if sum(value is not None for value in targets.values()) != 1:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in targets)
        return _usage("prune", f"give exactly one of {names}")
    from qaudio.compress.cost import cost
    from qaudio.compress.prune import plan, prune
    from qaudio.zoo.entry import load, save

    model = load(options.entry)
    chosen = plan(
        model,
        **targets,
        layers=options.layers,
        criterion=options.criterion,
        allocation=options.allocation,
        multiple_of=options.multiple_of,
        min_channels=options.min_channels,
    )
    small = prune(model, chosen)
    config = read_config(options.entry)
    folder = save(
        small, options.out, license=config["license"], extra={"plan.json": chosen.to_json()}
    )
    before, after = cost(model), cost(small)
    print(
        f"{folder}: {after.params} of {before.params} parameters "
        f"({after.params / before.params:.1%}), {after.macs / 1e9:.3f} of {before.macs / 1e9:.3f} "
        f"GMACs ({after.macs / before.macs:.1%}); not fine-tuned"
    )
    return 0


def _import(options: argparse.Namespace) -> int:
    if options.arch not in IMPORTERS[options.importer]:
        known = ", ".join(IMPORTERS[options.importer])
        return _usage("import", f"--arch of {options.importer} is one of {known}")
    from qaudio.zoo.importers import import_published, read_labels

    labels = None if options.labels is None else read_labels(options.labels)
    folder = import_published(
        options.file, options.importer, options.arch, options.out,
        labels=labels, license=options.license,
    )  # fmt: skip
    print(f"{folder}: {options.arch}, {'527 class names' if labels else 'no class names'}")
    return 0


def _training(name: str, arguments: list[str]) -> int:
    # Lightning's advice on loaders and checkpoints does not fit small cached sets.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory.*exists.*")
    warnings.filterwarnings("ignore", message=".*across ranks is zero.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
    from qaudio.training.run import main as run

    return run(name, arguments)


def _usage(command: str, message: str) -> int:
    print(f"qaudio {command}: {message}; see qaudio {command} --help", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
