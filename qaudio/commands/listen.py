"""`qaudio listen`: classes of live sound."""

import argparse
import json
import os
import sys

from qaudio.commands.common import Commands, add_model, add_windows, positive, usage
from qaudio.commands.over_files import open_model
from qaudio.text import shown

KINDS = ("s16", "s32", "f32")


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "listen", _listen, "the classes of live sound, window after window",
        "qaudio listen --threshold 0.3\n"
        "         qaudio listen --input street.wav --realtime --json\n"
        "         arecord -f S16_LE -r 16000 -c 1 | qaudio listen --input - --realtime",
    )  # fmt: skip
    sub.add_argument(
        "--input", metavar="FILE",
        help="a sound file, or - for standard input (WAV, or --raw) in place of the microphone",
    )  # fmt: skip
    sub.add_argument(
        "--realtime", action="store_true",
        help="of --input: a file no faster than it sounds; windows are skipped rather than late",
    )  # fmt: skip
    sub.add_argument(
        "--raw", choices=KINDS, help="standard input is little-endian samples without header"
    )
    sub.add_argument("--rate", type=positive, metavar="HZ", help="sample rate of --raw")
    sub.add_argument(
        "--channels", type=positive, metavar="N", help="interleaved channels of --raw (1)"
    )
    sub.add_argument("--device", metavar="NAME", help="microphone: number or part of its name")
    sub.add_argument("--list-devices", action="store_true", help="list the microphones and stop")
    add_model(sub, exported=True)
    add_windows(sub, "2", "a quarter window")
    sub.set_defaults(window=2.0)
    sub.add_argument(
        "--top-k", type=positive, metavar="N", help="classes to show (3; all above a threshold)"
    )
    sub.add_argument(
        "--threshold", type=float, metavar="P",
        help="only classes of at least this probability, and only windows that have one",
    )  # fmt: skip
    sub.add_argument(
        "--seconds", type=float, metavar="S", help="stop after so much sound (Ctrl-C; the end)"
    )
    sub.add_argument("--json", action="store_true", help="a line of JSON for each window")


def _listen(options: argparse.Namespace) -> int:
    if wrong := _wrong(options):
        return usage("listen", wrong)
    from qaudio.inference.listen import Listener
    from qaudio.inference.selection import Selection
    from qaudio.inference.sources import (
        from_file,
        from_pipe,
        in_real_time,
        microphone,
        microphones,
    )

    if options.list_devices:
        print("\n".join(microphones()) or "no microphone")
        return 0
    top_k = 3 if options.top_k is None and options.threshold is None else options.top_k
    selection = Selection(top_k=top_k, threshold=options.threshold)
    source = None
    if options.input == "-":
        pipe = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)  # without a wait for more
        source = from_pipe(pipe, options.raw, options.rate or 0, options.channels or 1)
    elif options.input is not None:
        source = from_file(options.input)
        source = in_real_time(source) if options.realtime else source
    model = open_model(options.model, 0)
    if source is None:  # last, so that no sound waits
        device = options.device
        source = microphone(int(device) if device and device.isdecimal() else device)
        print(f"qaudio: {source.name}, {source.sample_rate} Hz; Ctrl-C stops", file=sys.stderr)
    try:
        live = options.input is None or options.realtime
        hop = options.window / 4 if options.hop is None else options.hop
        listener = Listener(model, source, window=options.window, hop=hop, live=live)
        try:
            for heard in listener:
                found = selection.of(heard.analysis)
                if found or options.threshold is None:
                    _print(options, found, heard.analysis.spans[0], heard.lag)
                if options.seconds is not None and listener.heard >= options.seconds:
                    break
        except KeyboardInterrupt:  # the way to stop
            pass
        print(f"qaudio: {listener.summary()}", file=sys.stderr)
    finally:
        source.close()
    return 0


def _print(options: argparse.Namespace, found: list, span: list[float], lag: float) -> None:
    start, end = round(float(span[0]), 3), round(float(span[1]), 3)
    if options.json:
        classes = [{"label": p.label, "probability": p.probability} for p in found]
        line = {"start": start, "end": end, "lag": round(lag, 4), "predictions": classes}
        print(json.dumps(line), flush=True)
        return
    row = "  ".join(f"{p.probability:6.1%} {shown(p.label)}" for p in found)
    print(f"{start:9.2f} {end:9.2f}  {row}", flush=True)


def _wrong(options: argparse.Namespace) -> str | None:
    """What is wrong with the options."""
    if options.raw and options.input != "-":
        return "--raw goes with --input -"
    if bool(options.raw) != bool(options.rate):
        return "--raw and --rate go together"
    if options.channels and not options.raw:
        return "--channels goes with --raw"
    if options.realtime and options.input is None:
        return "--realtime goes with --input: a microphone is live as it is"
    if options.device and options.input is not None:
        return "--device goes with the microphone, not with --input"
    if options.input == "-" and os.isatty(0):
        return "--input - takes sound from a pipe: arecord … | qaudio listen --input -"
    if not 0.05 <= options.window <= 60:
        return "--window must be 0.05 to 60 seconds"
    if options.hop is not None and not 0.01 <= options.hop <= options.window:
        return "--hop must be 0.01 seconds to the window"
    if options.seconds is not None and not options.seconds > 0:
        return "--seconds must be above 0"
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        return "--threshold must be 0 to 1"
    return None
