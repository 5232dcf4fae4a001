"""What is wrong with a training command's arguments, in one line with the name that was meant."""

import inspect
import re
from collections.abc import Iterable

from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import import_object

from qaudio.data.benchmarks.registry import data_modules
from qaudio.text import similar

MODELS = ["qaudio.Classifier", "qaudio.DistilledClassifier", "qaudio.PrunedClassifier"]


def told(error: ArgumentError, parser: ArgumentParser) -> str:
    """An error of jsonargparse's, which lists what every type of a setting would take.

    Args:
        error: as raised.
        parser: that raised it.
    """
    text = str(error)
    options = [name.removesuffix("+") for name in parser._option_string_actions]
    # Above the first value that is quoted back stands the innermost fault, below its settings.
    inner = re.split(r"G(?:ot|iven) value", text)[0]
    keys = re.findall(r'Parser key "([^"]+)"', inner)
    setting = ".".join(keys)
    classes = re.findall(r"class_path '([^']+)'", inner)
    if found := re.search(r"unrecognized arguments: ((--[^\s=]+).*)", text):
        return f"unrecognized arguments: {found[1]}{similar(found[2], options)}"
    if found := re.search(r"Option '([^']+)' is not accepted", inner):
        name = found[1]
        if not classes:
            section = name.partition(".")[0]
            sections = {one.removeprefix("--").partition(".")[0] for one in options}
            return f"unknown setting {section}{similar(section, sections)}"
        return _unknown(setting, name, settings_of(import_object(classes[-1])))
    if found := re.search(r"Group '([^']+)' does not accept option '([^']+)'", text):
        start = f"--{found[1]}."
        known = (one.removeprefix(start) for one in options if one.startswith(start))
        return _unknown(found[1], found[2], known)
    if found := re.search(r"has no attribute '|No module named|Expected a dot import path", inner):
        name = classes[-1] if classes else inner[found.start() :].rpartition(": ")[2].split()[0]
        classes = MODELS if setting == "model" else [f"qaudio.{one.name}" for one in data_modules()]
        close = similar(name, classes) if setting in ("model", "data") else ""
        return f"{setting}: there is no class {name!r}{close}"
    kinds = re.findall(r"Expected a (?:<class '([\w.]+)'>|typing\.Literal\[(.*)\])", inner)
    value = re.search(r"G(?:ot|iven) value: (.*)", text)
    if setting and kinds and value:
        texts = dict.fromkeys(one or several for one, several in kinds)
        names = ["null" if name == "NoneType" else name for name in texts]
        return f"{setting}: expected {' or '.join(names)}, not {value[1]!r}"
    return text


def settings_of(kind: type) -> dict[str, inspect.Parameter]:
    """The arguments of a class, its own and those that it hands on to its parents, by name."""
    found: dict[str, inspect.Parameter] = {}
    for one in reversed(kind.__mro__):
        found |= inspect.signature(one.__init__).parameters  # type: ignore[misc]
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name: one for name, one in found.items() if one.kind in named and name != "self"}


def _unknown(section: str, name: str, known: Iterable[str]) -> str:
    return f"unknown setting {section}.{name}{similar(name, known, f'{section}.{{}}')}"
