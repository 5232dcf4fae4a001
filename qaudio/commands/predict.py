"""`qaudio predict`: classes of sound files."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from qaudio.commands.common import Commands, positive, say_beside_bar, usage
from qaudio.errors import AudioError
from qaudio.zoo.resolve import DEFAULT_ENTRY, load


def register(command: Commands) -> None:
    """Add the subcommands of this module."""
    sub = command(
        "predict", _predict, "the most probable classes of sound files",
        "qaudio predict your_file.wav --times",
    )  # fmt: skip
    sub.add_argument("files", nargs="*", help="sound files, or folders of them")
    sub.add_argument(
        "--model",
        default=DEFAULT_ENTRY,
        help="entry (name, folder or hf-hub:org/name) or .onnx file (%(default)s)",
    )
    sub.add_argument(
        "--runtime", choices=("torch", "onnx"),
        help="onnx: run an exported file, without torch (default: by the model's name)",
    )  # fmt: skip
    sub.add_argument("--top-k", type=positive, default=5, help="classes to show (%(default)s)")
    sub.add_argument(
        "--window",
        type=float,
        help="seconds of each window (the whole sound up to 30 s, 10 s beyond)",
    )
    sub.add_argument("--hop", type=float, help="seconds from window to window (half a window)")
    sub.add_argument("--times", action="store_true", help="add the classes of every window")
    sub.add_argument(
        "--demo", action="store_true", help="make a sound, qaudio-demo.wav, and predict on it"
    )
    sub.add_argument("--json", action="store_true", help="one JSON document a file")


def _predict(options: argparse.Namespace) -> int:
    if not options.files and not options.demo:
        return usage("predict", "give sound files, or --demo")
    if options.window is not None and not 0.05 <= options.window <= 3600:
        return usage("predict", "--window must be 0.05 to 3600 seconds")
    if options.hop is not None and not 0 < options.hop <= (options.window or 10):
        return usage("predict", "--hop must be above 0 and at most the window")
    exported = options.model.endswith(".onnx")
    if options.runtime is not None and exported != (options.runtime == "onnx"):
        wanted = "an entry" if exported else "an .onnx file, which `qaudio export` makes"
        return usage("predict", f"--runtime {options.runtime} takes {wanted}, as --model")
    from tqdm import tqdm

    from qaudio.data.audio import display_name, info
    from qaudio.prediction import analyse

    files = list(options.files)
    if options.demo:
        from qaudio.data.demo import write_demo

        files.insert(0, str(write_demo("qaudio-demo.wav")))
    paths, failed = _sound_files(files)
    model = _model(options.model, exported)
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
            say_beside_bar(str(error))
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


def _model(source: str, exported: bool) -> Any:
    if exported:
        from qaudio.deploy.onnx.runtime import OnnxModel

        return OnnxModel(source)

    return load(source)


def _sound_files(arguments: list[str]) -> tuple[list[str], int]:
    """The files that arguments name, folders searched; and how many named nothing."""
    from qaudio.data.audio import CONVERT, UNREAD, display_name, sound_files

    paths, failed = [], 0
    for argument in arguments:
        if os.path.isdir(argument):
            unread = sound_files(argument, UNREAD)
            for path in unread:
                say_beside_bar(f"{display_name(path)}: {CONVERT}")
            failed += len(unread)
            found = [str(path) for path in sound_files(argument)]
            if not found and not unread:
                say_beside_bar(f"{display_name(argument)}: a folder without sound files")
                failed += 1
            paths += found
        else:
            paths.append(argument)
    return paths, failed
