"""`qaudio verify`: check entries and what is generated from them."""

import argparse
from collections.abc import Callable
from pathlib import Path

from qaudio.cards import overview, tables
from qaudio.commands.common import Commands, print_error, replacing, usage
from qaudio.errors import EntryError
from qaudio.zoo.resolve import DEFAULT_ENTRY, on_hub
from qaudio.zoo.store import entries, zoo_folder


def register(command: Commands) -> None:
    """Add the subcommand."""
    sub = command(
        "verify", _verify, "check entries: hashes, weights, scores, card",
        f"qaudio verify {DEFAULT_ENTRY}",
    )  # fmt: skip
    sub.add_argument("entry", nargs="*", help="names, folders or hf-hub:org/name")
    sub.add_argument("--all", action="store_true", help="every entry and generated table")
    sub.add_argument(
        "--write",
        action="store_true",
        help="write cards again; with --all MODEL_CARDS.md and the tables too",
    )


def _verify(options: argparse.Namespace) -> int:
    from qaudio.cards.entries import renew_card, verify
    from qaudio.study import carried_over
    from qaudio.study.documents import GRIDS, documents
    from qaudio.study.grid import Study, study_entries

    if bool(options.entry) == options.all:
        return usage("verify", "give entries, or --all")
    if options.write and any(map(on_hub, options.entry)):
        return usage("verify", "--write needs a folder: qaudio pull … --out DIR gives one")
    failed = 0
    for name in options.entry or [*entries(), *study_entries()]:
        try:
            if options.write and renew_card(name):
                print(f"{name}: card written")
            print(f"{name}: " + "; ".join(verify(name)), flush=True)
        except EntryError as error:
            failed += 1
            print_error(error)
    top = zoo_folder().parent
    # The tables are made of entries that hold.
    if failed or not options.all or not (top / "pyproject.toml").is_file():
        return 1 if failed else 0
    recipes = top / "recipes"
    generated: dict[Path, list[Callable[[str], str]]] = {
        top / overview.FILE: [lambda old: old if overview.follows(old) else overview.draw()],
        top / "MODEL_CARDS.md": [lambda old: tables.index()],
        top / "README.md": [lambda old: tables.with_generated(old, "zoo picks", tables.picks())],
        recipes / "README.md": [
            lambda old: tables.with_generated(
                old,
                "carried over",
                carried_over.answers(recipes / "carried_over.yaml", zoo_folder()),
            )
        ],
    }
    for grid in GRIDS:
        for path, made_of in documents(Study(recipes / f"{grid}.yaml"), zoo_folder()).items():
            generated.setdefault(path, []).append(made_of)
    for path, sections in generated.items():
        made = text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for made_of in sections:
            made = made_of(made)
        if options.write and made != text:
            with replacing(path) as file:
                file.write(made.encode())
            print(f"{path.relative_to(top)}: written")
        elif tables.figures(made) != tables.figures(text):
            failed += 1
            where = path.relative_to(top)
            print_error(EntryError(f"{where}: shows other numbers than the entries' results give"))
        else:
            print(f"{path.relative_to(top)}: follows from the entries' results")
    return 1 if failed else 0
