"""Benchmarks by name: their DataModules, and what cards say of each.

A DataModule's file registers its benchmarks with the decorator below. Those of this package are
read from the files' source, as literals: importing them would load torch and Lightning, which
`qaudio list`, tables and cards do without.
"""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T", bound=type)
DECORATOR = "register_benchmark"


@dataclass(frozen=True)
class Benchmark:
    """Facts on a benchmark, as cards print them. Facts only: no score stands here.

    Attributes:
        title: its name in texts.
        about: what it is.
        use, not_for: what a network trained on it serves for, and what not.
        limits: of what was measured.
        license: of the data.
        hub: id of a copy on huggingface.co/datasets; "": none.
        citation: BibTeX; "": none.
        sharing: what clips of a kind have in common, in the plural; "": nothing known.
        shared: regular expression of where their ids tell of which they are.
    """

    title: str
    about: str = "your own recordings"
    use: str = "sounds like those it was trained on"
    not_for: str = "anything that those recordings do not hold"
    limits: str = "Not assessed: what the recordings hold and lack is for their owner to say."
    license: str = "not stated"
    hub: str = ""
    citation: str = ""
    sharing: str = ""
    shared: str = ""


class Registered(NamedTuple):
    """A DataModule and its benchmarks.

    Attributes:
        module, name: of the class.
        benchmarks: facts by the name that entries have in theirs ("esc10").
    """

    module: str
    name: str
    benchmarks: dict[str, Benchmark]

    @property
    def is_own(self) -> bool:
        """Whether it is one of this package's."""
        return self.module.startswith(f"{__package__}.")

    def load(self) -> Any:
        """The class."""
        return getattr(import_module(self.module), self.name)


_registered: dict[tuple[str, str], Registered] = {}  # by module and class


def register_benchmark(**benchmarks: dict[str, str]) -> Callable[[T], T]:
    """Decorator of a DataModule: make its benchmarks known to cards, tables and entry names.

    Args:
        **benchmarks: by name, the fields of `Benchmark`, of which `title` is needed; with "like",
            another of these, whose fields hold for what is left out; with "bias", the end of
            `limits` that others share.
    """

    def decorate(module: T) -> T:
        _add(module.__module__, module.__name__, benchmarks)
        return module

    return decorate


def _add(module: str, name: str, benchmarks: dict[str, dict[str, str]]) -> None:
    found: dict[str, Benchmark] = {}
    for key, given in benchmarks.items():
        like = benchmarks[given["like"]] if "like" in given else {}
        facts = {field: text for field, text in (like | given).items() if field != "like"}
        if bias := facts.pop("bias", ""):
            facts["limits"] += f" {bias}"
        found[key] = Benchmark(**facts)
    _registered[module, name] = Registered(module, name, found)


@cache
def _read_own() -> None:
    """Register this package's DataModules, from the source of the files beside this one."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                for call in node.decorator_list:
                    if isinstance(call, ast.Call) and ast.unparse(call.func) == DECORATOR:
                        texts = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
                        _add(f"{__package__}.{path.stem}", node.name, texts)


def data_modules() -> list[Registered]:
    """Every registered DataModule, this package's first."""
    _read_own()
    return sorted(_registered.values(), key=lambda one: not one.is_own)


def benchmarks() -> dict[str, Benchmark]:
    """Facts on every registered benchmark, by name."""
    return {name: facts for one in data_modules() for name, facts in one.benchmarks.items()}


def about(benchmark: str) -> Benchmark:
    """Facts on a benchmark; of your own recordings, that little is known."""
    return benchmarks().get(benchmark) or Benchmark(benchmark)
