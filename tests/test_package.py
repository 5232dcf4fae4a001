"""What the package as a whole promises: which part may know which, and what an import costs."""

import ast
import importlib
import os
import pkgutil
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import qaudio

ROOT = Path(qaudio.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
)
# Parts of the package that another part may import.
# Which part may import which other parts, from the bottom up: arrows point down only.
LEAVES = {"text", "paths", "progress", "resampling", "errors", "download", "records"}
NETWORKS = {"quaternion", "frontend_settings", "frontend", "models"}
SCORED = {*LEAVES, *NETWORKS, "compress", "evaluation", "data.benchmarks.registry"}
CARDS = {*SCORED, "zoo", "cards"}
MAY_IMPORT: dict[str, set[str]] = {
    "text": set(),
    "paths": set(),
    "progress": set(),
    "resampling": {"errors"},
    "errors": {"text"},
    "records": {"errors", "text"},
    "download": {"paths", "progress", "errors", "records"},
    "quaternion": set(),
    "frontend_settings": {"errors"},
    "frontend": {"frontend_settings", "resampling", "errors"},
    "data": {*LEAVES, "frontend"},
    "models": {"quaternion", "frontend_settings", "frontend", "errors", "text"},
    "compress": {*NETWORKS, "errors", "records", "progress"},
    "evaluation": {"errors", "records"},
    "zoo": SCORED,
    "cards": {*SCORED, "zoo"},
    "deploy": {*LEAVES, *NETWORKS, "compress", "data.audio"},  # which nothing of those above knows
    "prediction": {*LEAVES, "models", "data.audio", "deploy.onnx.runtime"},
    "inference": {"errors", "paths", "text", "resampling", *NETWORKS, "data.audio", "prediction",
                  "deploy.onnx.runtime"},
    "hear": {"errors", "models", "zoo"},
    "mteb": {"errors", "prediction", "zoo"},
    "compare": CARDS,
    "study": CARDS,
    "training": {*CARDS, "data", "deploy.optimize"},
    "commands": {
        *CARDS, "data", "deploy", "prediction", "inference", "compare", "study", "training",
    },
    "cli": {"commands", "errors"},
    "__main__": {"cli"},
}  # fmt: skip
WITHOUT_LIGHTNING = (
    "quaternion", "frontend_settings", "frontend", "models", "compress", "evaluation", "zoo",
    "cards", "deploy", "prediction", "compare", "study",
)  # fmt: skip


class Imports(ast.NodeVisitor):
    """Every module that a file imports.

    Args:
        module: the file's.
        is_package: whether it is an `__init__.py`.
        late: with those inside functions.
        types: with those for type checkers alone.
    """

    def __init__(self, module: str, is_package: bool, late: bool, types: bool):
        self.package = module if is_package else module.rpartition(".")[0]
        self.late, self.types = late, types
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test) and not self.types:
            for other in node.orelse:
                self.visit(other)
        else:
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if self.late:
            self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parts = self.package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
        for alias in node.names:
            if base == "qaudio" and alias.name == "__version__":
                continue  # a constant, above nothing
            if base == "qaudio" and alias.name in qaudio._HOMES:
                self.found.add(qaudio._HOMES[alias.name])  # a public name stands for its home
            elif f"{base}.{alias.name}" in MODULES:
                self.found.add(f"{base}.{alias.name}")
            else:
                self.found.add(base)


@cache
def imports_of(module: str, late: bool = True, types: bool = False) -> frozenset[str]:
    path = ROOT.parent.joinpath(*module.split("."))
    is_package = path.is_dir()
    source = (path / "__init__.py" if is_package else path.with_suffix(".py")).read_text("utf-8")
    visitor = Imports(module, is_package, late, types)
    visitor.visit(ast.parse(source))
    return frozenset(visitor.found)


@cache
def loaded_by(module: str, late: bool = False) -> frozenset[str]:
    """All modules, also other packages', that come along when a module is imported."""
    found, waiting = {module}, [module]
    while waiting:
        for name in imports_of(waiting.pop(), late) - found:
            found.add(name)
            if name in MODULES:
                waiting.append(name)
    return frozenset(found)


def outside(modules: frozenset[str]) -> set[str]:
    """The other packages among modules, the standard library apart."""
    roots = {name.partition(".")[0] for name in modules}
    return roots - {"qaudio"} - set(sys.stdlib_module_names)


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Some nodes that point at one another in a circle; [] where there is none."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for other in sorted(arrows.get(node, ())):
            if found := walk(other, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(arrows) if (found := walk(node, []))), [])


def within(module: str, part: str) -> bool:
    return f"{module}.".startswith(f"qaudio.{part}.")


def part_of(module: str) -> str:
    return module.split(".")[1]


def test_the_parts_are_there():
    """A part that is renamed must not drop out of the checks below unseen."""
    assert {part_of(module) for module in MODULES if module != "qaudio"} == set(MAY_IMPORT)
    for allowed in MAY_IMPORT.values():
        for part in allowed:
            assert any(within(module, part) for module in MODULES), part
    assert "qaudio.frontend" in imports_of("qaudio.models.base")
    assert "qaudio.zoo.io" in imports_of("qaudio.zoo.resolve")  # inside a function
    assert "qaudio.zoo.io" not in imports_of("qaudio.zoo.resolve", late=False)
    assert "qaudio.data.audio" not in imports_of("qaudio.data.dataset")  # TYPE_CHECKING
    assert "qaudio.data.audio" in imports_of("qaudio.data.dataset", types=True)
    assert "torch" in outside(loaded_by("qaudio.zoo.io"))
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_arrows_between_parts_point_down():
    assert circle({part: {name.split(".")[0] for name in allowed} - {part}
                   for part, allowed in MAY_IMPORT.items()}) == []  # fmt: skip


def test_no_circle_of_files():
    """Counting imports inside functions and those for type checkers alone, too.

    The package itself is one of them: whoever imports it reaches everything above.
    """
    assert circle({m: set(imports_of(m, types=True)) for m in MODULES}) == []


@pytest.mark.parametrize("module", MODULES[1:])
def test_parts_import_only_what_lies_below(module):
    allowed = {part_of(module), *MAY_IMPORT[part_of(module)]}
    inside = {name for name in imports_of(module, types=True) if name.split(".")[0] == "qaudio"}
    wrong = {name for name in inside if not any(within(name, other) for other in allowed)}
    assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


def test_exported_models_are_run_without_the_rest():
    inside = {name for name in loaded_by("qaudio.deploy.onnx.runtime") if name in MODULES}
    assert inside <= {"qaudio.deploy.onnx.runtime", "qaudio.records", "qaudio.resampling",
                      "qaudio.errors", "qaudio.text"}  # fmt: skip


@pytest.mark.parametrize("module", MODULES[1:])
def test_imports_inside_functions_save_time(module):
    """Such an import brings along a package that the file itself does not: else it stands on top.

    `qaudio list` and `qaudio predict` need few packages; circles are no reason.
    """
    here = outside(loaded_by(module))
    for name in imports_of(module) - imports_of(module, late=False):
        if name in MODULES:
            assert outside(loaded_by(name)) - here, f"{module}: import {name} on top"


@pytest.mark.parametrize("module", MODULES[1:])
def test_networks_and_entries_know_no_lightning(module):
    if part_of(module) in WITHOUT_LIGHTNING:
        assert not outside(loaded_by(module, late=True)) & {"lightning", "pytorch_lightning"}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports(module):
    importlib.import_module(module)


def test_every_folder_is_a_package():
    packages = {info.name for info in pkgutil.walk_packages([str(ROOT)], "qaudio.") if info.ispkg}
    folders = {module.rpartition(".")[0] for module in MODULES} - {"", "qaudio"}
    assert folders <= packages


@pytest.mark.parametrize("name", qaudio.__all__)
def test_every_public_name_resolves(name):
    assert getattr(qaudio, name) is not None
    assert name in dir(qaudio)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = qaudio.no_such_name


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter that ran `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules, file=sys.stderr)"],
        env=os.environ | {"PYTHONPATH": str(ROOT.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import qaudio",
        "import qaudio.zoo.store, qaudio.zoo.resolve",
        "from qaudio.cli import main; main(['list'])",
    ],
)
def test_light_imports_load_no_torch(code):
    heavy = {"torch", "numpy", "lightning", "soundfile", "huggingface_hub", "matplotlib", "timm"}
    assert not loaded_after(code) & heavy


def test_comparing_entries_loads_no_torch():
    loaded = loaded_after("from qaudio.cli import main; main(['compare'])")
    assert "numpy" in loaded
    assert not loaded & {"torch", "lightning", "matplotlib"}


def test_loading_an_entry_loads_only_what_it_needs():
    code = (
        "import qaudio; qaudio.load, qaudio.plan, qaudio.cost, qaudio.predict, qaudio.push\n"
        "qaudio.create_model('qcnn6_006', num_classes=2)"
    )
    loaded = loaded_after(code)
    assert "torch" in loaded
    assert not loaded & {"lightning", "huggingface_hub", "matplotlib", "timm"}


def test_an_entry_is_loaded_without_torchs_compiler():
    loaded = loaded_after("import qaudio; qaudio.load('qcnn10_050.esc10_pruned50')")
    assert "torch" in loaded
    assert not loaded & {"sympy", "lightning"}  # the compiler's, and a second of imports


def test_tests_cannot_leave_the_machine():
    with pytest.raises(RuntimeError, match="tried to reach"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


@pytest.mark.parametrize("name", ["zoo/x.esc10/README.md", "tests/zoo/schema1/config.json"])
def test_git_leaves_the_line_ends_of_entries(name):
    """They are checked by the sha256 of their files, which other line ends would change."""
    done = subprocess.run(
        ["git", "check-attr", "text", "--", name], cwd=ROOT.parent, capture_output=True, text=True
    )
    assert done.stdout == f"{name}: text: unset\n"
