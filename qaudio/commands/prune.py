"""`qaudio prune`: a smaller entry from an entry."""

import argparse
import warnings

from qaudio.commands.common import (
    Commands,
    add_entry,
    add_out,
    amount,
    check_out,
    positive,
    print_error,
    usage,
)
from qaudio.zoo.resolve import load, locate
from qaudio.zoo.schema import Source
from qaudio.zoo.store import read_config, read_source, to_json, trained_on

# Options that `qaudio.plan` takes as they are.
TARGETS = ("ratio", "target_macs", "target_params", "target_latency")
HOW = ("layers", "criterion", "allocation", "multiple_of", "min_channels", "seed")


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "prune", _prune, "remove filters from an entry, without fine-tuning",
        "qaudio prune qcnn10_050.esc10 --ratio 0.5 --out my_pruned",
    )  # fmt: skip
    add_entry(sub)
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


def _prune(options: argparse.Namespace) -> int:
    targets = {name: getattr(options, name) for name in TARGETS}
    if sum(value is not None for value in targets.values()) != 1:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in targets)
        return usage("prune", f"give exactly one of {names}")
    if options.criterion == "taylor":
        return usage(
            "prune", "--criterion taylor needs clips: train a recipe with it, or call qaudio.plan"
        )
    check_out(options)
    from qaudio.cards.entries import save
    from qaudio.compress.cost import cost
    from qaudio.compress.prune import plan, prune

    source = locate(options.entry)
    model = load(source)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        chosen = plan(model, **targets, **{name: getattr(options, name) for name in HOW})
    for warning in warned:
        print_error(str(warning.message))
    small = prune(model, chosen)
    config, extra = read_config(source), {"plan.json": chosen.to_json()}
    seen = trained_on(source)
    if seen is not None:  # so that it can be fine-tuned on recordings that it has not seen
        earlier = read_source(source)
        kept = earlier.held_out if earlier else None
        extra["source.json"] = to_json(Source(trained_on=seen, held_out=kept))
    folder = save(small, options.out, license=config.license, extra=extra)
    before, after = cost(model), cost(small)
    print(
        f"{folder}: {after.params} of {before.params} parameters "
        f"({after.params / before.params:.1%}), {after.macs / 1e9:.3f} of {before.macs / 1e9:.3f} "
        f"GMACs ({after.macs / before.macs:.1%})"
    )
    print(
        "not fine-tuned: until it is, its accuracy may be at chance. Next:\n"
        f"  qaudio finetune my_sounds --from {options.out}\n"
        f"  qaudio predict your_file.wav --model {options.out}\n"
        f"  qaudio export {options.out} --out model.onnx"
    )
    return 0
