"""`qaudio explain`: a picture of where in a sound a network finds a class."""

import argparse
import json
from pathlib import Path

from qaudio.commands.common import (
    Commands,
    add_model,
    add_windows,
    replacing,
    usage,
    wrong_file,
    wrong_windows,
)
from qaudio.progress import progress
from qaudio.text import shown
from qaudio.zoo.resolve import load

SUFFIXES = (".png", ".svg", ".pdf")


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "explain", _explain, "a picture of where in a sound a network finds a class",
        "qaudio explain dog.wav --out why.png\n"
        "         qaudio explain field.wav --start 60 --seconds 30 --label rain --out why.png",
    )  # fmt: skip
    sub.add_argument("file", help="sound file")
    sub.add_argument(
        "--out", required=True, metavar="FILE.png",
        help="picture to write (.png, .svg or .pdf): spectrogram, class activation (Grad-CAM on "
        "the last convolution) and probabilities over time",
    )  # fmt: skip
    add_model(sub)
    sub.add_argument("--label", metavar="CLASS", help="class to explain (the most probable one)")
    sub.add_argument("--start", type=float, default=0.0, metavar="S", help="begin here (0)")
    sub.add_argument(
        "--seconds", type=float, metavar="S", help="length of the stretch, up to 600 (to the end)"
    )
    add_windows(sub, "of the probabilities over time: 1 s up to 30 s of sound, 10 s beyond")
    sub.add_argument("--json", action="store_true", help="one JSON document in place of the text")


def _explain(options: argparse.Namespace) -> int:
    if wrong := _wrong(options):
        return usage("explain", wrong)
    from qaudio.data.audio import display_name
    from qaudio.inference.explain import explain, read_part
    from qaudio.inference.picture import draw, write

    out = Path(options.out)
    samples, rate = read_part(options.file, options.start, options.seconds)
    model = load(options.model)
    with progress(total=round(len(samples) / rate, 1), unit="s") as bar:
        found = explain(
            model, samples, rate, label=options.label, start=options.start, window=options.window,
            hop=options.hop, progress=lambda done: bar.update(done - bar.n),
        )  # fmt: skip
    name, entry = display_name(options.file), shown(Path(options.model).name)
    figure = draw(found, f"{Path(name).name}  ·  {entry}")
    with replacing(out) as file:
        write(figure, file, out.suffix.lower()[1:])
    strongest = found.strongest()
    if options.json:
        document = {
            "file": name, "explained": vars(found.prediction),
            "predictions": [vars(p) for p in found.top],
            "strongest": None if strongest is None else {"start": strongest[0],
                                                         "end": strongest[1]},
            "picture": str(out),
        }  # fmt: skip
        if found.reason is not None:
            document["no_activation"] = found.reason
        print(json.dumps(document))
        return 0
    print(f"{name}  ({entry})")
    for p in found.top:
        print(f"  {p.probability:6.1%}  {shown(p.label)}")
    label = shown(found.prediction.label)
    if found.reason is not None:
        print(f"{found.reason}: the picture shows the rest")
    elif strongest is None:
        print(f"no part of the sound speaks for {label}")
    else:
        print(f"{label}: strongest from {strongest[0]:.2f} to {strongest[1]:.2f} s")
    print(f"{shown(str(out))}: written")
    return 0


def _wrong(options: argparse.Namespace) -> str | None:
    """What is wrong with the options."""
    from qaudio.inference.explain import MOST_SECONDS

    if wrong := wrong_file(Path(options.out), SUFFIXES):
        return wrong
    if not 0 <= options.start < float("inf"):
        return "--start must be 0 seconds or more"
    if options.seconds is not None and not 0 < options.seconds <= MOST_SECONDS:
        return f"--seconds must be above 0 and at most {MOST_SECONDS:g}"
    if options.model.endswith(".onnx"):
        return "an exported file gives no class activation: give an entry"
    return wrong_windows(options)
