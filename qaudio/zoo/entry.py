"""Entries: a network and everything known of it, as a folder. Save, load, verify."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialised

from qaudio.errors import EntryError
from qaudio.evaluation import per_class
from qaudio.evaluation.predictions import Predictions, metric_of, paired_difference, summarise
from qaudio.models.base import AudioModel, evaluating
from qaudio.models.registry import from_config, tensors_of
from qaudio.paths import replace_folder
from qaudio.zoo.catalog import (
    SCHEMA_VERSION,
    at_hand,
    check_config,
    entry_name,
    file_of,
    locate,
    read_config,
    read_json,
    read_results,
)

# What git, the Hub's client and file managers put into a folder: it stays, and is no part of an
# entry.
NOT_OURS = (".git", ".gitattributes", ".gitignore", ".cache", ".DS_Store", "Thumbs.db")
PROBE_TOLERANCE = 1e-3  # of the logits' range, between machines and library versions


def load(
    source: str | Path,
    *,
    num_classes: int | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> AudioModel:
    """A pretrained network, in eval mode.

    Args:
        source: entry name ("qcnn10_050.esc10_pruned50"), folder, or address on the Hugging Face Hub
            ("hf-hub:your-name/entry", "hf-hub:your-name/entry@revision"). Checkpoints that others
            host ("cnn14.audioset") are downloaded at first use, entries on the Hub when they are
            new or have changed.
        num_classes: put a fresh classifier of this size on it, to fine-tune.
        revision: branch, tag or commit on the Hub, where the source names none.
        cache_dir: for what comes from the Hub, in place of huggingface_hub's own cache.

    Raises:
        EntryError: names the file, what was expected and what was found.
    """
    folder = locate(source, revision=revision, cache_dir=cache_dir)
    version, model = None, None
    while model is None or version != _version(folder):
        version = _version(folder)
        try:
            model = load_weights(folder)
        except EntryError:
            # Another process may have replaced the entry between two of its files.
            if version == _version(folder):
                raise
    if num_classes is not None:
        model.reset_classifier(num_classes)
    return model


def _version(folder: Path) -> tuple[int, int]:
    """What tells an entry from the one that takes its place, even from an equal one."""
    stat = (folder / "config.json").stat()
    return stat.st_ino, stat.st_mtime_ns


def load_weights(folder: Path, weights: str = "model.safetensors") -> AudioModel:
    """The network of an entry with one of its files of weights; raises EntryError."""
    config = read_config(folder)
    if "model.safetensors" not in config["files"]:
        raise EntryError(f"{folder.name}: holds results without weights; its recipe trains them")
    path = _check_hash(folder, config, weights)
    try:
        _check_tensors(path, tensors_of(config), f"{entry_name(folder)}: {weights}")
        model = from_config(config)
    except (ValueError, TypeError, RuntimeError) as error:
        raise EntryError(f"{entry_name(folder)}: config.json: {error}") from None
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise EntryError(f"{entry_name(folder)}: {weights} is not readable ({error})") from None
    return model.eval()


def _check_tensors(path: Path, expected: dict[str, torch.Tensor], where: str) -> None:
    """Compare a file of weights, by its header, with what a config asks for; raises EntryError.

    Before the network is built: no config makes it larger than the weights that came with it.
    """
    try:
        with safe_open(path, "pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {
                name: (tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()
            }
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise EntryError(f"{where} is not readable ({error})") from None
    for name in sorted(expected.keys() | found.keys()):
        asked = tuple(expected[name].shape) if name in expected else "none"
        shape, kind = found.get(name, ("none", ""))
        if asked != shape:
            raise EntryError(f"{where}: tensor {name}: expected shape {asked}, found {shape}")
        if expected[name].is_floating_point() != kind.startswith(("F", "BF")):
            raise EntryError(
                f"{where}: tensor {name}: expected {expected[name].dtype}, found {kind}"
            )


def save(
    model: AudioModel,
    folder: str | Path,
    *,
    results: dict[str, Any] | None = None,
    predictions: Predictions | None = None,
    recipe: str | None = None,
    license: str | None = None,
    folds: dict[str, dict[str, torch.Tensor]] | None = None,
    extra: dict[str, str] | None = None,
    weights: bool = True,
) -> Path:
    """Write an entry: all of it, or nothing.

    Args:
        model: its weights become model.safetensors.
        folder: replaced when it is an entry already, but for what git keeps there; folders that
            hold other files are refused.
        results: content of results.json; without it the entry has no score and no card.
        predictions: what the results were computed from.
        recipe: text of recipe.yaml.
        license: Hub identifier, such as "cc-by-4.0".
        folds: state dicts to keep beside the model's, by file name.
        extra: texts to store beside them, by file name.
        weights: False leaves out weights, probe and card: results alone, for cells of a study.

    Returns:
        The folder.

    Raises:
        EntryError: when the folder holds something else, or the entry could not be read again,
            such as with labels that are not as many as the classes.
    """
    from qaudio import __version__
    from qaudio.cards import files as card_files
    from qaudio.cards.model_card import FORMAT

    folder = Path(folder)
    refuse_other(folder)

    def write(new: Path) -> None:
        states = {"model.safetensors": model.state_dict()} | (folds or {}) if weights else {}
        for name, state in states.items():
            (new / name).parent.mkdir(exist_ok=True)
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
            # Not save_file, whose files are nobody's but their owner's to read.
            (new / name).write_bytes(serialised(plain, {"format": "pt"}))
        if weights:
            loaded = model
            if model.classifier.weight.dtype != torch.float32:  # which `load` gives
                loaded = from_config(model.config)
                loaded.load_state_dict(model.state_dict())
            (new / "probe.safetensors").write_bytes(serialised(make_probe(loaded)))
        config = {
            "schema_version": SCHEMA_VERSION,
            "qaudio_version": __version__,
            **model.config,
            "license": license,
        }
        if predictions is not None:
            predictions.save(new / "predictions.npz")
        for name, text in (extra or {}).items():
            (new / name).write_text(text, encoding="utf-8", newline="\n")
        if recipe is not None:
            (new / "recipe.yaml").write_text(recipe, encoding="utf-8", newline="\n")
        if results is not None:
            (new / "results.json").write_text(to_json(results), encoding="utf-8", newline="\n")
            if weights:
                config["card_format"] = FORMAT
                card_files.write(new, config, results, predictions)
        names = sorted(p.relative_to(new).as_posix() for p in new.rglob("*") if p.is_file())
        config["files"] = {name: file_hash(new / name) for name in names}
        try:
            check_config(config)
        except ValueError as error:
            raise EntryError(f"{folder}: would not be read again: {error}") from None
        (new / "config.json").write_text(to_json(config), encoding="utf-8", newline="\n")

    replace_folder(folder, write, keep=NOT_OURS)
    return folder


def verify(source: str | Path) -> list[str]:
    """Check an entry from end to end.

    File hashes; strict load; the probe's logits; every score of results.json computed anew from
    predictions.npz, and the difference to the parent where that is at hand; the card made anew
    and compared byte for byte.

    Returns:
        What was checked, a line each.

    Raises:
        EntryError: at the first thing that does not hold.
    """
    from qaudio.cards import files as card_files

    folder = locate(source)
    config = read_config(folder)
    present, listed = _files(folder), set(config["files"])
    if not (folder / "folds").is_dir():  # wheels and downloads may leave them out, all of them
        listed = {name for name in listed if not name.startswith("folds/")}
    for wrong, why in (
        (listed - present, "files missing"),
        (present - listed - {"config.json"}, "files that config.json does not list"),
    ):
        if wrong:
            raise EntryError(f"{entry_name(folder)}: {why}: {', '.join(sorted(wrong))}")
    for name in sorted(listed):
        _check_hash(folder, config, name)
    done = [f"{len(listed)} files match their sha256"]
    weights = "model.safetensors" in listed
    if weights:
        model = load_weights(folder)
        for name in sorted(listed):
            if name.startswith("folds/"):
                load_weights(folder, name)
        done.append(f"probe logits within {check_probe(folder, model):.1e} of the stored ones")
    results = read_results(folder, whole=True)
    if results is not None:
        predictions = _check_results(folder, config, results)
        done.append("results.json follows from predictions.npz")
        if per_class.FILE in listed:  # entries of earlier versions have none
            if read_json(folder / per_class.FILE) != per_class.report(
                predictions, config["labels"]
            ):
                raise EntryError(
                    f"{entry_name(folder)}: {per_class.FILE} is not what its predictions give"
                )
            done.append(f"{per_class.FILE} follows from predictions.npz")
        if weights:
            done.append(card_files.check(folder, config, results, predictions))
    return done


def renew_card(source: str | Path) -> bool:
    """Write an entry's card anew, from its config, results and predictions; nothing else changes.

    Returns:
        Whether anything was written.

    Raises:
        EntryError: when results or predictions are not those that config.json lists, or do not
            agree: a card is not made of what does not verify.
    """
    from qaudio.cards import files as card_files
    from qaudio.cards.model_card import FORMAT

    folder = locate(source)
    config, results = read_config(folder), read_results(folder, whole=True)
    if results is None or "model.safetensors" not in config["files"]:
        return False
    for name in ("results.json", "predictions.npz"):
        _check_hash(folder, config, name)
    predictions = _check_results(folder, config, results)
    try:
        for name in card_files.names(config):
            _check_hash(folder, config, name)
        if config.get("card_format") == FORMAT:
            card_files.check(folder, config, results, predictions)
            return False
    except EntryError:
        pass  # not the card that it should be: that is what this is for
    refuse_other(folder)
    keep = [name for name in config["files"] if name not in card_files.names(config)]

    def write(new: Path) -> None:
        for name in keep:
            if (folder / name).is_file():  # folds may be left out
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file_of(folder, name), new / name)
        renewed = {key: value for key, value in config.items() if key != "files"}
        renewed["card_format"] = FORMAT
        written = card_files.write(new, renewed, results, predictions)
        files = {name: config["files"][name] for name in keep}
        files |= {name: file_hash(new / name) for name in written}
        renewed["files"] = dict(sorted(files.items()))
        (new / "config.json").write_text(to_json(renewed), encoding="utf-8", newline="\n")

    replace_folder(folder, write, keep=NOT_OURS)
    return True


def make_probe(model: AudioModel) -> dict[str, torch.Tensor]:
    """A second of a made sound, and the logits that the model gives for it."""
    rate = model.sample_rate
    time = torch.arange(rate, dtype=torch.float64) / rate
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(rate, generator=generator, dtype=torch.float64)
    sweep = torch.sin(2 * torch.pi * (100 * time + 0.2 * rate * time**2 / 2))
    waveform = (0.5 * sweep + 0.05 * noise).float()
    return {"waveform": waveform, "logits": _eval_logits(model, waveform)}


def check_probe(folder: Path, model: AudioModel) -> float:
    """Largest difference to the stored logits, as a share of their range; raises EntryError."""
    try:
        probe = load_file(file_of(folder, "probe.safetensors"))
        if not all(tensor.is_floating_point() for tensor in probe.values()):
            raise ValueError("tensors of another type than float")
        expected, found = probe["logits"], _eval_logits(model, probe["waveform"])
        if expected.shape != found.shape:
            raise ValueError(f"{tuple(expected.shape)} logits for a model of {tuple(found.shape)}")
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise EntryError(
            f"{entry_name(folder)}: probe.safetensors is not usable ({error})"
        ) from None
    spread = float(expected.max() - expected.min()) or 1.0
    difference = float((expected - found).abs().max()) / spread
    if not difference <= PROBE_TOLERANCE:
        raise EntryError(
            f"{entry_name(folder)}: the weights give other logits than probe.safetensors holds "
            f"(off by {difference:.1e} of their range, allowed {PROBE_TOLERANCE:.0e})"
        )
    return difference


def _eval_logits(model: AudioModel, waveform: torch.Tensor) -> torch.Tensor:
    with evaluating(model), torch.no_grad():
        return model(waveform.to(model.classifier.weight.device)).float().cpu()


def _check_results(folder: Path, config: dict[str, Any], results: dict[str, Any]) -> Predictions:
    """Compute every score anew; the predictions. Raises EntryError where one differs."""
    try:
        predictions = Predictions.load(file_of(folder, "predictions.npz"))
        predictions.check(config["num_classes"], config["task"])
        again = summarise(predictions, metric_of(config["task"]))
    except ValueError as error:
        raise EntryError(
            f"{entry_name(folder)}: results cannot be computed anew ({error})"
        ) from None
    _compare(folder, "result", results["result"], again)
    parent = results.get("parent")
    if parent and parent.get("difference"):
        theirs = at_hand(parent["name"], folder.parent)
        if theirs is None:
            return predictions
        try:
            difference = paired_difference(
                predictions, Predictions.load(file_of(theirs, "predictions.npz"))
            )
        except ValueError as error:
            raise EntryError(f"{entry_name(folder)}: parent {parent['name']}: {error}") from None
        _compare(folder, "parent.difference", parent["difference"], difference)
    return predictions


def _compare(folder: Path, where: str, stated: Any, computed: Any) -> None:
    if isinstance(stated, dict) and isinstance(computed, dict):
        for key in sorted(stated.keys() | computed.keys()):
            _compare(folder, f"{where}.{key}", stated.get(key), computed.get(key))
    elif stated != computed:
        raise EntryError(
            f"{entry_name(folder)}: results.json: {where} says {stated!r}, predictions.npz gives "
            f"{computed!r}"
        )


def _check_hash(folder: Path, config: dict[str, Any], name: str) -> Path:
    """A file's path, once it was found to be the one that config.json lists; raises EntryError."""
    expected = config["files"].get(name)
    if expected is None:
        raise EntryError(f"{entry_name(folder)}: {name} is not listed in config.json")
    path = file_of(folder, name)
    found = file_hash(path)
    if found != expected:
        with open(path, "rb") as file:
            if file.read(64).startswith(b"version https://git-lfs"):
                raise EntryError(
                    f"{entry_name(folder)}: {name} is a pointer of Git LFS: `git lfs pull` there "
                    "fetches the file"
                )
        raise EntryError(
            f"{entry_name(folder)}: {name} was changed: sha256 {found[:12]}…, "
            f"expected {expected[:12]}…"
        )
    return path


def file_hash(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(document: dict[str, Any]) -> str:
    """The one way entries write JSON."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def refuse_other(folder: Path) -> None:
    """Raise EntryError where there is something that an entry must not take the place of.

    That is a file, a folder that is no entry, or an entry with files that are not its own.
    """
    folder = folder.expanduser()
    if folder.exists() and not folder.is_dir():
        raise EntryError(f"{folder}: is a file, not a folder; choose another name")
    files = _files(folder)
    if not files:
        return
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        listed = {"config.json", *config["files"]} if "schema_version" in config else set()
    except (OSError, ValueError, TypeError, KeyError):
        listed = set()
    if not listed:
        raise EntryError(f"{folder}: holds files but is no entry; choose another folder")
    if others := sorted(files - listed):
        raise EntryError(
            f"{folder}: holds files that are not the entry's ({', '.join(others[:5])}): move them, "
            "or choose another folder"
        )


def _files(folder: Path) -> set[str]:
    """Files below a folder, but for those that git and its like put there."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        path.as_posix() for path in paths if not {path.parts[0], path.name}.intersection(NOT_OURS)
    }
