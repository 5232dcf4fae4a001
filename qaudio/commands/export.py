"""`qaudio export`: a model as an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path

from qaudio.commands.common import Commands, usage
from qaudio.zoo.resolve import DEFAULT_ENTRY, load, locate
from qaudio.zoo.store import read_config


def register(command: Commands) -> None:
    """Add the subcommands of this module."""
    sub = command(
        "export", _export, "write an entry as an ONNX file, checked against PyTorch",
        f"qaudio export {DEFAULT_ENTRY} --out model.onnx",
    )  # fmt: skip
    sub.add_argument("entry", help="name, folder or hf-hub:org/name")
    sub.add_argument("--out", required=True, help="file to write, ending in .onnx")
    sub.add_argument("--features", action="store_true", help="leave the front-end out")
    sub.add_argument("--int8", action="store_true", help="quantise the network; needs --calibrate")
    sub.add_argument("--calibrate", metavar="FOLDER", help="sounds like those to come, for --int8")
    sub.add_argument(
        "--form", choices=("auto", "matrix", "products"), default="auto",
        help="of quaternion convolutions (auto: the faster one)",
    )  # fmt: skip


def _export(options: argparse.Namespace) -> int:
    if options.int8 != (options.calibrate is not None):
        return usage("export", "--int8 and --calibrate FOLDER go together")
    if not options.out.endswith(".onnx"):
        return usage("export", "--out must end in .onnx")
    if options.int8 and options.form == "products":
        return usage("export", "--int8 takes --form matrix or auto")
    from qaudio.deploy.onnx.export import export_onnx

    folder = locate(options.entry)
    made = export_onnx(
        load(folder),
        options.out,
        features=options.features,
        form=options.form,
        calibrate=options.calibrate,
        entry=Path(options.entry).name,
        license=read_config(folder)["license"],
    )
    check, int8 = made.metadata["check"], made.metadata.get("int8")
    size = made.path.stat().st_size / 1e6
    print(
        f"{made.path}: {size:.1f} MB, ONNX opset {made.metadata['opset']}; fp32 logits within "
        f"{check['largest_difference']:.1e} of PyTorch's, as a share of their range"
    )
    if int8:
        same = int8.get("top1_agreement")
        agreement = (
            f"{int8['label_agreement']:.1%} of all labels, at .5, as by fp32"
            if same is None
            else f"{same:.1%} top-1 agreement with fp32"
        )
        print(
            f"int8: calibrated on {int8['calibrated_on']} clips; on {int8['checked_on']} others "
            f"{agreement}, logits within {int8['largest_difference']:.1%} of their range"
        )
    return 0
