"""`qaudio verify`, `prune` and `import`: check entries and make them."""

from __future__ import annotations

import argparse
import warnings

from qaudio.commands.common import (
    Commands,
    add_out,
    amount,
    check_out,
    positive,
    replacing,
    say_failed,
    usage,
)
from qaudio.errors import EntryError
from qaudio.zoo.catalog import DEFAULT_ENTRY, IMPORTERS, entries, held_out, read_config, trained_on


def register(command: Commands) -> None:
    """Add the subcommands of this module."""
    sub = command(
        "verify", _verify, "check entries: hashes, weights, scores, card",
        f"qaudio verify {DEFAULT_ENTRY}",
    )  # fmt: skip
    sub.add_argument("entry", nargs="*", help="names, folders or hf-hub:org/name")
    sub.add_argument("--all", action="store_true", help="every entry and generated table")
    sub.add_argument(
        "--write",
        action="store_true",
        help="write cards anew; with --all MODEL_CARDS.md and the tables too",
    )

    sub = command(
        "prune", _prune, "remove filters from an entry, without fine-tuning",
        "qaudio prune qcnn10_050.esc10 --ratio 0.5 --out my_pruned",
    )  # fmt: skip
    sub.add_argument("entry", help="name, folder or hf-hub:org/name")
    add_out(sub)
    sub.add_argument("--ratio", type=float, help="share of the filters to remove")
    sub.add_argument(
        "--target-macs",
        type=amount,
        help="share (≤ 1) or number (300M) of MACs of a 10 s clip to keep, met within 2 %%",
    )
    sub.add_argument(
        "--target-params",
        type=amount,
        help="share (≤ 1) or number (100k) of parameters to keep, met within 2 %%",
    )
    sub.add_argument(
        "--target-latency", type=float,
        help="share (≤ 1) or milliseconds to keep, of a 10 s clip, measured here, met within 10 %%",
    )  # fmt: skip
    sub.add_argument("--layers", default="all", help="all, published, blocksA-B or names")
    sub.add_argument(
        "--criterion", default="l1",
        help="l1, l2, gm_published, fpgm, operator_norm, bn_scale or random (%(default)s)",
    )  # fmt: skip
    sub.add_argument("--seed", type=int, default=0, help="of --criterion random (%(default)s)")
    sub.add_argument(
        "--allocation", choices=("uniform", "global"), default="uniform",
        help="the same share of every layer, or the lowest of all layers' filters (%(default)s)",
    )  # fmt: skip
    sub.add_argument(
        "--multiple-of", type=positive, default=4,
        help="channels that stay are a multiple of this (%(default)s)",
    )  # fmt: skip
    sub.add_argument(
        "--min-channels", type=positive, default=8,
        help="channels that every layer keeps at least (%(default)s)",
    )  # fmt: skip

    sub = command(
        "import", _import, "an entry from a checkpoint file that others published",
        "qaudio import panns Cnn14_mAP=0.431.pth --arch cnn14 --out cnn14.audioset",
    )  # fmt: skip
    sub.add_argument("importer", choices=IMPORTERS, help="whose code wrote it")
    sub.add_argument("file", help="the .pth file")
    sub.add_argument(
        "--arch", required=True, choices=[arch for known in IMPORTERS.values() for arch in known],
        help="architecture of the checkpoint",
    )  # fmt: skip
    add_out(sub)
    sub.add_argument("--labels", help="AudioSet's class_labels_indices.csv, for class names")
    sub.add_argument("--license", help="of the weights, such as cc-by-4.0")


def _verify(options: argparse.Namespace) -> int:
    from qaudio.cards import tables
    from qaudio.study import forest_plot
    from qaudio.study.answers import Findings
    from qaudio.study.grid import Study, study_entries
    from qaudio.zoo.catalog import on_hub, zoo_folder
    from qaudio.zoo.entry import renew_card, verify

    if bool(options.entry) == options.all:
        return usage("verify", "give entries, or --all")
    if options.write and any(map(on_hub, options.entry)):
        return usage("verify", "--write needs a folder: qaudio pull … --out DIR gives one")
    failed = 0
    for name in options.entry or [*entries(), *study_entries()]:
        try:
            if options.write and renew_card(name):
                print(f"{name}: card written")
            print(f"{name}: " + "; ".join(verify(name)), flush=True)
        except EntryError as error:
            failed += 1
            say_failed(error)
    top = zoo_folder().parent
    # The tables are made of entries that hold.
    if failed or not options.all or not (top / "pyproject.toml").is_file():
        return 1 if failed else 0
    findings = Findings(Study(top / "recipes" / "study.yaml"), zoo_folder())
    for path, what, made in (
        (top / "MODEL_CARDS.md", None, tables.index()),
        (top / "README.md", "zoo tables", tables.readme_tables()),
        (top / "recipes" / "README.md", "study tables", findings.render()),
        (zoo_folder() / forest_plot.FILE, None, forest_plot.draw(findings)),
    ):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        made = tables.with_generated(text, what, made) if what else made
        if options.write and made != text:
            with replacing(path) as file:
                file.write(made.encode())
            print(f"{path.relative_to(top)}: written")
        elif made != text:
            failed += 1
            where = path.relative_to(top)
            say_failed(EntryError(f"{where}: differs from what the entries' results give"))
        else:
            print(f"{path.relative_to(top)}: follows from the entries' results")
    return 1 if failed else 0


def _prune(options: argparse.Namespace) -> int:
    targets = {
        name: getattr(options, name)
        for name in ("ratio", "target_macs", "target_params", "target_latency")
    }
    if sum(value is not None for value in targets.values()) != 1:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in targets)
        return usage("prune", f"give exactly one of {names}")
    if options.criterion == "taylor":
        return usage(
            "prune", "--criterion taylor needs clips: train a recipe with it, or call qaudio.plan"
        )
    check_out(options)
    from qaudio.compress.cost import cost
    from qaudio.compress.prune import plan, prune
    from qaudio.zoo.entry import load, save, to_json

    model = load(options.entry)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        chosen = plan(
            model,
            **targets,
            layers=options.layers,
            criterion=options.criterion,
            allocation=options.allocation,
            multiple_of=options.multiple_of,
            min_channels=options.min_channels,
            seed=options.seed,
        )
    for warning in warned:
        say_failed(str(warning.message))
    small = prune(model, chosen)
    config, extra = read_config(options.entry), {"plan.json": chosen.to_json()}
    seen = trained_on(options.entry)
    if seen is not None:  # so that it can be fine-tuned on recordings that it has not seen
        source = {"trained_on": seen, "held_out": held_out(options.entry)}
        extra["source.json"] = to_json(source)
    folder = save(small, options.out, license=config["license"], extra=extra)
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
        return usage("import", f"--arch of {options.importer} is one of {known}")
    check_out(options)
    from qaudio.zoo.convert import import_published, read_labels

    labels = None if options.labels is None else read_labels(options.labels)
    folder = import_published(
        options.file, options.importer, options.arch, options.out,
        labels=labels, license=options.license,
    )  # fmt: skip
    print(f"{folder}: {options.arch}, {'527 class names' if labels else 'no class names'}")
    return 0
