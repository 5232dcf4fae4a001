"""`qaudio demo`: a page to try entries on sounds of one's own."""

import argparse
import tempfile
from pathlib import Path

from qaudio.commands.common import Commands, usage
from qaudio.errors import InputError
from qaudio.text import shown
from qaudio.zoo.resolve import DEFAULT_ENTRY, load


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "demo", _demo, "a local page: drop or record a sound, see what entries make of it",
        "qaudio demo\n         qaudio demo qcnn10_050.esc10 qcnn10_050.esc10_pruned75",
    )  # fmt: skip
    sub.add_argument(
        "entries", nargs="*", metavar="ENTRY",
        help=f"names, folders or hf-hub:org/name; two are shown side by side ({DEFAULT_ENTRY})",
    )  # fmt: skip
    sub.add_argument("--port", type=int, metavar="N", help="of the page (a free one from 7860)")
    sub.add_argument("--no-browser", action="store_true", help="print its address, open nothing")


def _demo(options: argparse.Namespace) -> int:
    sources = list(dict.fromkeys(options.entries or [DEFAULT_ENTRY]))
    if any(source.endswith(".onnx") for source in sources):
        return usage("demo", "an exported file gives no heat map: give entries")
    if options.port is not None and not 1 <= options.port <= 65535:
        return usage("demo", "--port must be 1 to 65535")
    import gradio  # noqa: F401  # first, so that what is missing is said at once

    from qaudio.data.demo import write_demo
    from qaudio.inference.demo import build, launch

    models = {}
    for source in sources:
        name = shown(Path(source).name)
        models[shown(source) if name in models else name] = load(source)
    with tempfile.TemporaryDirectory() as folder:
        page = build(models, write_demo(Path(folder) / "clock.wav"))
        try:
            launch(page, port=options.port, browser=not options.no_browser)
        except OSError as error:
            raise InputError(f"the page cannot be served: {error}") from None
    return 0
