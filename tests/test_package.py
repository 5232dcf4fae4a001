"""What the package as a whole promises: which part may know which, and what an import costs."""

import ast
import importlib
import os
import pkgutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import qaudio

ROOT = Path(qaudio.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
)
# Parts of the package that another part may import.
LEAVES = {"errors", "paths", "text", "resampling", "download"}
MAY_IMPORT = {
    "resampling": set(),
    "paths": set(),
    "text": set(),
    "errors": {"text"},
    "download": {"paths"},
    "quaternion": {"quaternion"},
    "frontend": {"resampling"},
    "data": {*LEAVES, "frontend", "data"},
    "models": {"quaternion", "frontend", "models"},
    "compress": {"quaternion", "frontend", "models", "compress"},
    "evaluation": {"evaluation"},
    "zoo": {*LEAVES, "models", "evaluation", "zoo", "cards", "data.benchmarks.descriptions"},
    "cards": {*LEAVES, "models", "evaluation", "zoo", "cards", "data.benchmarks.descriptions"},
    "study": {*LEAVES, "evaluation", "zoo", "cards", "study", "data.benchmarks.descriptions"},
    "compare": {*LEAVES, "evaluation", "zoo", "cards", "compare", "data.benchmarks.descriptions"},
    "deploy": {*LEAVES, "data.audio", "quaternion", "frontend", "models", "compress", "deploy"},
    "deploy.onnx.runtime": {"resampling"},
    "inference": {
        "errors", "paths", "text", "models", "data.audio", "prediction", "deploy.onnx.runtime",
        "inference",
    },
    "prediction": {"resampling", "models", "data.audio", "deploy.onnx.runtime"},
}  # fmt: skip
WITHOUT_LIGHTNING = (
    "quaternion",
    "frontend",
    "models",
    "compress",
    "evaluation",
    "zoo",
    "cards",
    "study",
)


class Imports(ast.NodeVisitor):
    """Every module that a file imports when it runs, also inside functions."""

    def __init__(self, module: str, is_package: bool):
        self.package = module if is_package else module.rpartition(".")[0]
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                self.visit(other)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parts = self.package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
        for alias in node.names:
            if base == "qaudio" and alias.name in qaudio._HOMES:
                self.found.add(qaudio._HOMES[alias.name])  # a public name stands for its home
            elif f"{base}.{alias.name}" in MODULES:
                self.found.add(f"{base}.{alias.name}")
            else:
                self.found.add(base)


def imports_of(module: str) -> set[str]:
    path = ROOT.parent.joinpath(*module.split("."))
    is_package = path.is_dir()
    source = (path / "__init__.py" if is_package else path.with_suffix(".py")).read_text("utf-8")
    visitor = Imports(module, is_package)
    visitor.visit(ast.parse(source))
    return visitor.found


def within(module: str, part: str) -> bool:
    return f"{module}.".startswith(f"qaudio.{part}.")


def test_the_parts_are_there():
    """A part that is renamed must not drop out of the checks below unseen."""
    for part in MAY_IMPORT:
        assert any(within(module, part) for module in MODULES), part
    assert "qaudio.frontend" in imports_of("qaudio.models.base")
    assert "qaudio.zoo.io" in imports_of("qaudio.zoo.resolve")  # inside a function
    assert "qaudio.data.datamodule" not in imports_of("qaudio.training.leakage")  # TYPE_CHECKING


@pytest.mark.parametrize("module", MODULES)
def test_dependencies_point_one_way(module):
    inside = {name for name in imports_of(module) if name.startswith("qaudio.")}
    for part, allowed in MAY_IMPORT.items():
        if within(module, part):
            wrong = {name for name in inside if not any(within(name, other) for other in allowed)}
            assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"
    assert "qaudio.cli" not in inside


@pytest.mark.parametrize("module", MODULES)
def test_networks_and_entries_know_no_lightning(module):
    if any(within(module, part) for part in WITHOUT_LIGHTNING):
        roots = {name.partition(".")[0] for name in imports_of(module)}
        assert not roots & {"lightning", "pytorch_lightning"}


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
    ["import qaudio", "import qaudio.zoo.store", "from qaudio.cli import main; main(['list'])"],
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
