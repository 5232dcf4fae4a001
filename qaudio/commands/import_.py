"""`qaudio import`: an entry from a checkpoint file that others published."""

import argparse

from qaudio.commands.common import Commands, add_out, check_out, usage
from qaudio.models.registry import lookup

IMPORTERS = ("panns", "qpann", "efficientat")  # whose code wrote a published checkpoint


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "import", _import, "an entry from a checkpoint file that others published",
        "qaudio import panns Cnn14_mAP=0.431.pth --arch cnn14 --out cnn14.audioset",
    )  # fmt: skip
    sub.add_argument("importer", choices=IMPORTERS, help="whose code wrote it")
    sub.add_argument("file", help="the .pth file")
    sub.add_argument("--arch", required=True, help="architecture of the checkpoint")
    add_out(sub)
    sub.add_argument("--labels", help="AudioSet's class_labels_indices.csv, for class names")
    sub.add_argument("--license", help="of the weights, such as cc-by-4.0")


def _import(options: argparse.Namespace) -> int:
    known = lookup(options.arch)
    if known is None or known.importer != options.importer:
        return usage("import", f"{options.importer} has no {options.arch!r}")
    check_out(options)
    from qaudio.zoo.convert import import_published, read_labels

    labels = None if options.labels is None else read_labels(options.labels)
    folder = import_published(
        options.file, options.importer, options.arch, options.out,
        labels=labels, license=options.license,
    )  # fmt: skip
    print(f"{folder}: {options.arch}, {'527 class names' if labels else 'no class names'}")
    return 0
