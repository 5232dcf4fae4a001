"""`qaudio export`: a model as a file of ONNX, ExecuTorch or LiteRT, or as C99."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qaudio.commands.common import Commands, add_entry, amount, usage
from qaudio.zoo.resolve import DEFAULT_ENTRY, load, locate
from qaudio.zoo.store import read_config

if TYPE_CHECKING:
    from qaudio.deploy.export_checks import Export

SUFFIXES = {"onnx": ".onnx", "executorch": ".pte", "litert": ".tflite", "c": ""}  # c: a folder
# Options that one target takes and the others do not.
ONLY = {
    "onnx": ("features", "int8", "calibrate", "form"),
    "executorch": ("seconds",),
    "litert": ("seconds",),
    "c": ("calibrate",),
}


def register(command: Commands) -> None:
    """Add the subcommands of this module."""
    sub = command(
        "export", _export, "write an entry for another runtime, checked against PyTorch",
        f"qaudio export {DEFAULT_ENTRY} --out model.onnx",
    )  # fmt: skip
    add_entry(sub)
    sub.add_argument(
        "--to", choices=tuple(SUFFIXES), default="onnx",
        help="runtime (default onnx); `qaudio doctor` says which work here",
    )  # fmt: skip
    sub.add_argument(
        "--out", required=True, help="file to write, ending in .onnx, .pte (executorch) or "
        ".tflite (litert); for c a folder",
    )  # fmt: skip
    sub.add_argument(
        "--seconds", type=amount, help="length of the clips that an executorch or litert file "
        "takes (default: as the entry is scored)",
    )  # fmt: skip
    sub.add_argument("--features", action="store_true", help="onnx: leave the front-end out")
    sub.add_argument(
        "--int8", action="store_true", help="onnx: quantise the network; needs --calibrate"
    )
    sub.add_argument(
        "--calibrate", metavar="FOLDER", help="sounds like those to come, for --int8 and c"
    )
    sub.add_argument(
        "--form", choices=("auto", "matrix", "products"), default="auto",
        help="onnx: of quaternion convolutions (auto: the faster one)",
    )  # fmt: skip
    sub.set_defaults(
        unset={name: sub.get_default(name) for names in ONLY.values() for name in names}
    )


def _export(options: argparse.Namespace) -> int:
    if fault := _fault(options):
        return usage("export", fault)
    folder = locate(options.entry)
    said = {"entry": Path(options.entry).name, "license": read_config(folder).license}
    if options.to == "onnx":
        from qaudio.deploy.onnx.export import export_onnx

        made = export_onnx(
            load(folder),
            options.out,
            features=options.features,
            form=options.form,
            calibrate=options.calibrate,
            **said,
        )
        _print_onnx(made)
    elif options.to == "c":
        from qaudio.deploy.c.export import export_c

        made = export_c(load(folder), options.out, calibrate=options.calibrate, **said)
        _print_c(made)
    else:
        from qaudio.deploy.mobile import export_mobile

        made = export_mobile(load(folder), options.out, options.to, seconds=options.seconds, **said)
        _print_mobile(made)
    return 0


def _fault(options: argparse.Namespace) -> str | None:
    """What is wrong with the options taken together."""
    target = options.to
    for name, default in options.unset.items():
        if getattr(options, name) != default and name not in ONLY[target]:
            return f"--to {target} takes no --{name}"
    if target == "c" and options.calibrate is None:
        return "--to c needs --calibrate FOLDER"
    if target == "onnx" and options.int8 != (options.calibrate is not None):
        return "--int8 and --calibrate FOLDER go together"
    if not options.out.endswith(SUFFIXES[target]):
        return f"--out must end in {SUFFIXES[target]}"
    if options.int8 and options.form == "products":
        return "--int8 takes --form matrix or auto"
    return None


def _print_onnx(made: Export) -> None:
    check, int8 = made.metadata["check"], made.metadata.get("int8")
    size = made.path.stat().st_size / 1e6
    print(
        f"{made.path}: {size:.1f} MB, ONNX opset {made.metadata['opset']}; fp32 logits within "
        f"{check['largest_difference']:.1e} of PyTorch's, as a share of their range"
    )
    if int8:
        _print_int8(int8)


def _print_mobile(made: Export) -> None:
    said = made.metadata
    print(
        f"{made.path}: {said['bytes'] / 1e6:.1f} MB, clips of "
        f"{said['samples'] / said['sample_rate']:g} s in {said['milliseconds']:.1f} ms here; fp32 "
        f"logits within {said['check']['largest_difference']:.1e} of PyTorch's, as a share of "
        "their range"
    )


def _print_c(made: Export) -> None:
    tables, check = made.metadata["bytes"], made.metadata.get("check")
    print(
        f"{made.path}: C99, {tables['network'] / 1000:.1f} kB of network and "
        f"{tables['frontend'] / 1000:.1f} kB of front-end tables"
    )
    if check:
        print(
            f"compiled here: {check['memory_bytes'] / 1000:.1f} kB of memory, "
            f"{check['milliseconds_per_second']:.1f} ms for a second of sound; logits within "
            f"{check['from_features']:.1e} of the same integers in PyTorch from the same features, "
            f"{check['from_waveforms']:.1e} from sounds, as shares of their range"
        )
    _print_int8(made.metadata["int8"])


def _print_int8(int8: dict[str, Any]) -> None:
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
