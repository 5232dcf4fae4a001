"""The `qaudio` command.

Exit codes: 0 fine, 1 failed with one clear line, 2 wrong usage, 130 interrupted.
"""

import importlib
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

from qaudio import __version__
from qaudio.commands import training
from qaudio.commands.common import (
    REPORT,
    Commands,
    Parser,
    add_debug,
    is_user_error,
    print_error,
    warning_line,
)
from qaudio.errors import UsageError

# Files of qaudio/commands/ by command, in the order of the help; only the one named is loaded.
COMMANDS = {
    "list": "list_", "info": "info", "predict": "predict", "embed": "embed", "explain": "explain",
    "listen": "listen", "demo": "demo", "probe": "probe", "calibrate": "calibrate",
    "compare": "compare", "verify": "verify", "prune": "prune", "import": "import_",
    "export": "export", "push": "push", "pull": "pull", "finetune": "finetune",
    "recipes": "recipes",
    **dict.fromkeys(training.TRAINING, "training"), "study": "study", "pack": "pack",
    "doctor": "doctor",
}  # fmt: skip
# Packages that a command may find missing, and the extra that brings each.
EXTRAS = {
    "torch": "", "onnx": "[onnx]", "onnxscript": "[onnx]", "onnxruntime": "[onnx]",
    "executorch": "[executorch]", "litert_torch": "[litert]", "ai_edge_litert": "[litert]",
    "sounddevice": "[live]", "gradio": "[demo]",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files that its encoding lacks
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("qaudio: %(message)s"))
    logging.getLogger("qaudio").handlers = [handler]  # one, however often main() is called
    warnings.formatwarning = warning_line
    try:
        _import_own()
    except UsageError as error:
        return print_error(error)
    if (
        arguments
        and arguments[0] in training.TRAINING
        and not {"-h", "--help"} & set(arguments[1:2])
    ):
        debug = "--debug" in arguments  # LightningCLI knows no such option
        arguments = [argument for argument in arguments if argument != "--debug"]
        return guarded(lambda: training.run(arguments[0], arguments[1:]), debug)
    command = next((one for one in arguments if not one.startswith("-")), "")
    parser = make_parser(command)
    if command and command not in COMMANDS:
        parser.refuse_command(command, COMMANDS)
    options, others = parser.parse_known_args(arguments)
    if others and not hasattr(options, "overrides"):
        options.parser.refuse(others)
    options.overrides = others
    return guarded(lambda: options.run(options), getattr(options, "debug", False))


def _import_own() -> None:
    """Import the modules that $QAUDIO_IMPORT names, separated by commas; raises UsageError.

    They register architectures and benchmarks, and may lie in the current folder.
    """
    names = [name for name in os.environ.get("QAUDIO_IMPORT", "").split(",") if name]
    if names and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise  # something that the module needs
            raise UsageError(
                f"QAUDIO_IMPORT: no module {name!r} in this folder or on Python's path"
            ) from None


def guarded(run: Callable[[], int], debug: bool = False) -> int:
    """Turn what a user can mend into one line on stderr and exit code 1; raises all else."""
    try:
        code = run()
        sys.stdout.flush()  # here, where a reader that went away is no error
        return code
    except KeyboardInterrupt as error:
        print(f"qaudio: interrupted{f': {error}' if str(error) else ''}", file=sys.stderr)
        return 130  # as shells have it
    except BrokenPipeError:
        # The reader went away (`qaudio list | head`); keep the interpreter from saying so again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        return print_error(f"this needs {error.name}: pip install 'qaudio{EXTRAS[error.name]}'")
    except Exception as error:
        if not is_user_error(error):
            error.add_note(REPORT)
            raise
        if debug:
            traceback.print_exc()
        return print_error(error)


def make_parser(command: str = "") -> Parser:
    """Of one command, or of all where none is named."""
    parser = Parser(
        prog="qaudio",
        description="A model zoo of quaternion CNNs for audio classification.",
        epilog="example: qaudio predict your_file.wav",
    )
    parser.add_argument("--version", action="version", version=f"qaudio {__version__}")
    add_debug(parser)
    commands = Commands(parser)
    files = [COMMANDS[command]] if command in COMMANDS else dict.fromkeys(COMMANDS.values())
    for file in files:
        importlib.import_module(f"qaudio.commands.{file}").register(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
