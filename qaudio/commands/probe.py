"""`qaudio probe`: what a pretrained entry is worth on a benchmark, without training it."""

import argparse
import json

from qaudio.commands.common import Commands, add_entry, usage
from qaudio.zoo.resolve import load


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "probe", _probe, "score an entry on a benchmark that it was not trained on",
        "qaudio probe qcnn10_050.audioset_kd_long --config recipes/esc10/qcnn10_050.yaml "
        "--data.root data/ESC-50",
    )  # fmt: skip
    add_entry(sub)
    sub.add_argument(
        "--config",
        required=True,
        help="a recipe, whose data section is taken; --data.SETTING VALUE overrides it",
    )
    sub.add_argument(
        "--zero-shot", action="store_true",
        help="by the tagger's own classes that mean the benchmark's, or are the same; default: a "
        "linear probe of the embeddings, each fold's fitted on the others",
    )  # fmt: skip
    sub.add_argument("--write", action="store_true", help="add the score to the entry and its card")
    sub.add_argument("--json", action="store_true", help="print the score as JSON")
    sub.set_defaults(overrides=[])  # of the recipe's data section, as --data.root PATH


def _probe(options: argparse.Namespace) -> int:
    others = [
        one for one in options.overrides if one.startswith("--") and not one.startswith("--data")
    ]
    if others:
        return usage("probe", f"unknown option {others[0]}; of the recipe only --data.… is taken")
    from qaudio.cards.entries import add_transfer
    from qaudio.evaluation.probe import LINEAR, ZERO_SHOT
    from qaudio.training.cli import recipe_data
    from qaudio.training.leakage import refuse_heard
    from qaudio.training.transfer import transfer

    data = recipe_data(options.config, options.overrides)
    refuse_heard(options.entry, data)
    found = transfer(load(options.entry), data, ZERO_SHOT if options.zero_shot else LINEAR)
    result = found.result
    if options.write:
        add_transfer(options.entry, **vars(found))
    if options.json:
        score = {"benchmark": found.benchmark, "dataset": found.dataset, "protocol": found.protocol}
        print(json.dumps(score | {"result": result.to_dict()}))
    else:
        low, high = result.interval95
        print(
            f"{options.entry}: {found.protocol}: {result.metric} {result.mean:.4f}, 95 % interval "
            f"{low:.4f}-{high:.4f}, {result.clips} clips"
        )
    return 0
