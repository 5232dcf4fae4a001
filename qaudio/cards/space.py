"""The page of `qaudio demo` as a Hugging Face Space: its files, and publishing them."""

import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import yaml

from qaudio import __version__
from qaudio.cards.entries import refuse_folders
from qaudio.errors import EntryError
from qaudio.text import shown
from qaudio.zoo import hub
from qaudio.zoo.hub_cache import check_repo
from qaudio.zoo.resolve import locate
from qaudio.zoo.store import PACKAGE, entry_name, file_of, read_config, to_json

PYTHON = "3.11"
GRADIO = "6.0.0"  # where none is installed
KEPT = ("README.md", "model.safetensors")  # of an entry, beside its config.json
LEFT_OUT = ("__pycache__", "entries", "recipes", "*.pyc")  # of the package
APP = '''"""The page of `qaudio demo` for these entries."""

from pathlib import Path

import qaudio
from qaudio.data.demo import write_demo
from qaudio.inference.demo import build, launch

ENTRIES = {entries}
HERE = Path(__file__).resolve().parent

models = {{name: qaudio.load(HERE / "entries" / name) for name in ENTRIES}}
page = build(models, write_demo(HERE / "bowl.wav"), note="Sounds are analysed on this Space.")
launch(page, host=None)
'''


def push_space(
    sources: Sequence[str | Path],
    repo_id: str,
    *,
    private: bool = False,
    license: str | None = None,
) -> hub.Pushed:
    """Publish what `write_space` writes, in one commit.

    Args:
        repo_id: "your-name/demo"; made where it does not exist.
        private: make it a private one.

    Raises:
        EntryError: as `write_space`; when the Hub refuses or cannot be reached. Says what to do.
    """
    check_repo(repo_id)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "space"
        write_space(sources, folder, license=license)
        return hub.push_space(folder, repo_id, private=private)


def write_space(
    sources: Sequence[str | Path], folder: Path, *, license: str | None = None
) -> list[str]:
    """Write app.py, requirements.txt, README.md, the entries and this package into a new folder.

    A Space needs nothing but these: the package comes along, for it may be a newer one than any
    that is published.

    Args:
        sources: entries: names, folders or hf-hub:org/name.
        folder: made.
        license: of the weights, Hub identifier, in place of the entries'.

    Returns:
        The entries' names.

    Raises:
        EntryError: when an entry has no licence, or its texts hold folders of this machine.
    """
    names: list[str] = []
    for source in sources:
        found = locate(source)
        name = entry_name(found).rpartition("/")[2]
        if name in names:
            raise EntryError(f"two of the entries are named {shown(name)}: a Space shows one")
        _copy_entry(found, folder / "entries" / name, license)
        names.append(name)
    shutil.copytree(PACKAGE, folder / "qaudio", ignore=shutil.ignore_patterns(*LEFT_OUT))
    (folder / "app.py").write_text(APP.format(entries=repr(names)), encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join([*_requirements(), ""]), encoding="utf-8")
    (folder / "README.md").write_text(_readme(folder, names), encoding="utf-8")
    return names


def _copy_entry(found: Path, folder: Path, license: str | None) -> None:
    config = read_config(found)
    config.license = license or config.license
    if not config.license:
        raise EntryError(f"{entry_name(found)}: has no licence, and is published: give --license")
    refuse_folders(found, ["config.json", "README.md"])
    folder.mkdir(parents=True)
    for name in KEPT:
        if name in config.files:
            shutil.copyfile(file_of(found, name), folder / name)
    (folder / "config.json").write_text(to_json(config), encoding="utf-8")


def _requirements() -> list[str]:
    """What the package needs, without its extras; gradio is the Space's."""
    try:
        needed = requires("qaudio") or []
    except PackageNotFoundError:
        raise EntryError(
            "qaudio is not installed, so what it needs is not known: pip install ."
        ) from None
    plain = [one for one in needed if "extra ==" not in one]
    return ["--extra-index-url https://download.pytorch.org/whl/cpu", *sorted(plain)]


def _readme(folder: Path, names: Sequence[str]) -> str:
    """The Space's settings, which the Hub reads, and what it shows."""
    try:
        gradio = version("gradio")
    except PackageNotFoundError:
        gradio = GRADIO
    front = {
        "title": "qaudio", "emoji": "🔊", "colorFrom": "blue", "colorTo": "green", "sdk": "gradio",
        "sdk_version": gradio, "python_version": PYTHON, "app_file": "app.py", "pinned": False,
        "license": "apache-2.0", "short_description": "Drop a sound: which classes, when and why",
        "tags": ["audio-classification", "qaudio"],
    }  # fmt: skip
    licences = {name: read_config(folder / "entries" / name).license for name in names}
    rows = "\n".join(f"- `{name}`, {licence}" for name, licence in licences.items())
    settings = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return (
        f"---\n{settings}---\n\n# qaudio\n\nThe page of `qaudio demo` (qaudio {__version__}) with "
        f"these entries; the licences are those of their weights, the code's is Apache-2.0:\n\n"
        f"{rows}\n"
    )
