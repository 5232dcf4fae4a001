"""Weights that others published, in this package's names and layout."""

import csv
import os
import re
import warnings
from pathlib import Path

import torch
from torch import Tensor

from qaudio.errors import EntryError, InputError, entry_errors, refused_global
from qaudio.models.base import check_weights
from qaudio.models.registry import architectures, create_model, find
from qaudio.zoo.io import write_entry
from qaudio.zoo.schema import Source
from qaudio.zoo.store import file_hash, to_json

AUDIOSET_CLASSES, AUDIOSET_SECONDS = 527, 10.0
MOST_LABELS = 1 << 20  # bytes of a file of their names: AudioSet's has 15 000
# What PANNs and QPANN trained on, and what they kept for testing, as `qaudio.AudioSet` names it.
TRAINED_ON, HELD_OUT = "AudioSet", "AudioSet evaluation list"

# Constants of the published front-ends; ours are made from its settings.
_FRONTEND = ("spectrogram_extractor.", "logmel_extractor.")
_COMPONENTS = ("r_weight", "i_weight", "j_weight", "k_weight")


def import_published(
    path: str | Path,
    importer: str,
    arch: str,
    folder: str | Path,
    *,
    labels: list[str] | None = None,
    license: str | None = None,
    url: str | None = None,
    citation: str | None = None,
) -> Path:
    """An entry made of a published AudioSet checkpoint.

    Args:
        path: the `.pth` or `.pt` file.
        importer: "panns", "qpann" or "efficientat", whose code wrote it.
        arch: the network it holds, registered with this importer.
        license: of the weights, Hub identifier.
        url, citation: where the file came from, for the entry's source.json.

    Raises:
        EntryError: when the file is no such checkpoint, another network's, or holds weights that
            are NaN or infinite.
        ValueError: for an architecture that the importer does not know.
    """
    path = Path(path)
    if find(arch).importer != importer or arch not in architectures():
        theirs = [name for name in architectures() if find(name).importer == importer]
        raise InputError(f"{importer} has {', '.join(theirs)}, not {arch!r}")
    state = CONVERTERS[importer](read_checkpoint(path, wrapped=importer != "efficientat"))
    frontend = {"kind": "published"} if importer == "qpann" else None
    model = create_model(arch, num_classes=AUDIOSET_CLASSES, frontend=frontend)
    _check_tensors(path, arch, model.state_dict(), state)
    model.load_state_dict(state)
    with entry_errors(str(path)):
        check_weights(model.state_dict())
    model.task, model.eval_seconds, model.labels = "multilabel", AUDIOSET_SECONDS, labels
    source = Source(
        file=path.name, size=path.stat().st_size, sha256=file_hash(path), importer=importer,
        trained_on=[TRAINED_ON], held_out=HELD_OUT, url=url, citation=citation,
    )  # fmt: skip
    return write_entry(
        model.eval(), folder, license=license, extra={"source.json": to_json(source)}
    )


def read_checkpoint(path: str | Path, wrapped: bool = True) -> dict[str, Tensor]:
    """The state dict of a published file.

    Args:
        path: the file.
        wrapped: it holds `{"iteration": …, "model": state dict}`; else the state dict itself.

    Only tensors and plain containers are ever built: a pickle that names anything else is refused
    before it can be called.

    Raises:
        EntryError: when the file is missing, cut short, hides code, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise EntryError(f"{path}: no such file")
    try:
        with warnings.catch_warnings(action="ignore"):  # on odd pickles, before they are refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes the reader raise is not documented
        if named := refused_global(error):
            raise EntryError(
                f"{path}: refused, its pickle would run {named} when loaded; nothing was run"
            ) from None
        raise EntryError(
            f"{path}: not a checkpoint of plain tensors that PyTorch can read; it is cut short, or "
            "another kind of file; nothing in it was run"
        ) from None
    state = content
    if wrapped:
        state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        held = f"keys {', '.join(map(str, content))}" if isinstance(content, dict) else "no keys"
        wanted = "'iteration' and 'model'" if wrapped else "tensors"
        raise EntryError(
            f"{path}: not a published checkpoint: expected a dictionary of {wanted}, found "
            f"{type(content).__name__} with {held[:200]}"
        )
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            where = "model: " if wrapped else ""
            raise EntryError(f"{path}: {where}{name!r} is {type(tensor).__name__}, not a tensor")
        if fault := _no_weights(name, tensor):
            raise EntryError(f"{path}: tensor {name} {fault}: not weights as published")
    return state


def _no_weights(name: str, tensor: Tensor) -> str | None:
    """What makes a tensor none of weights, before anything is computed with it."""
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized:
        return "is sparse, quantised or nested, not dense"
    if tensor.device.type != "cpu":
        return f"holds no values, it is on {tensor.device}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "claims more values than the file holds"
    if not tensor.is_floating_point() and not name.endswith("num_batches_tracked"):
        return f"is of {tensor.dtype}, not floating point"
    return None


def read_labels(path: str | Path) -> list[str]:
    """Names of AudioSet's 527 classes, from its class_labels_indices.csv; raises EntryError."""
    try:
        size = os.path.getsize(path)
        if size > MOST_LABELS:
            raise ValueError(f"{size} bytes")
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = {int(row["index"]): row["display_name"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise EntryError(
            f"{path}: expected AudioSet's class_labels_indices.csv, with columns index, mid and "
            f"display_name ({type(error).__name__}: {error})"
        ) from None
    if set(names) != set(range(AUDIOSET_CLASSES)) or not all(names.values()):
        raise EntryError(
            f"{path}: expected names of classes 0 to {AUDIOSET_CLASSES - 1}, found {len(names)}"
        )
    return [names[n] for n in range(AUDIOSET_CLASSES)]


def _check_tensors(
    path: Path, arch: str, expected: dict[str, Tensor], found: dict[str, Tensor]
) -> None:
    """Raise EntryError naming the first tensor that differs, in network order, and unknown keys."""
    faults = []
    for name, tensor in expected.items():
        shape = tuple(found[name].shape) if name in found else "none"
        if shape != tuple(tensor.shape):
            faults.append(f"tensor {name}: expected shape {tuple(tensor.shape)}, found {shape}")
            break
    unknown = [name for name in found if name not in expected]
    if unknown:
        rest = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        faults.append(f"unknown keys {', '.join(unknown[:5])}{rest}")
    if faults:
        raise EntryError(f"{path}: not {arch} as published: {'; '.join(faults)}")


def convert_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of PANNs' or QPANN's code as our networks load it, strictly.

    The classifier's name changes, the front-end's constants are left out, and the four component
    tensors of a quaternion layer become one weight with rows r|i|j|k. The published linear layers
    store (in/4, out/4) and are transposed; the convolutions store (out/4, in/4, kH, kW) as ours.

    Args:
        state: what a published file holds under "model" (Kong et al., PANNs, TASLP 2020;
            Chaudhary et al., Interspeech 2024).

    Returns:
        A new dictionary; unchanged tensors are shared with `state`.

    Raises:
        ValueError: when a quaternion layer lacks a component, or its components differ in shape.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(_FRONTEND):
            continue
        layer, _, leaf = name.rpartition(".")
        if leaf in _COMPONENTS:
            if f"{layer}.weight" not in converted:
                converted[f"{layer}.weight"] = _joined(layer, state)
        elif layer == "fc_audioset":
            converted[f"classifier.{leaf}"] = tensor
        else:
            converted[name] = tensor
    return converted


def convert_efficientat(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of EfficientAT's code as `MobileNet` loads it, strictly.

    Layers are renamed, and the linear layers of squeeze and excitation become convolutions of 1×1.

    Args:
        state: what a published file holds (Schmid, Koutini & Widmer, ICASSP 2023).

    Returns:
        A new dictionary; its tensors share memory with `state`.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = name.replace(".conc_se_layers.0.", ".")
        if re.search(r"\.fc[12]\.weight$", name) and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        for theirs, ours in _EFFICIENTAT.items():
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
                break
        converted[name] = tensor
    return converted


_EFFICIENTAT = {
    "features.": "backbone.",
    "classifier.2.": "hidden.0.",
    "classifier.5.": "classifier.",
}
CONVERTERS = {
    "panns": convert_published,
    "qpann": convert_published,
    "efficientat": convert_efficientat,
}


def _joined(layer: str, state: dict[str, Tensor]) -> Tensor:
    """The four component tensors of a quaternion layer as one weight: (out, in/4, *kernel)."""
    missing = [leaf for leaf in _COMPONENTS if f"{layer}.{leaf}" not in state]
    if missing:
        raise InputError(f"quaternion layer {layer!r} lacks {', '.join(missing)}")
    parts = [state[f"{layer}.{leaf}"] for leaf in _COMPONENTS]
    shapes = [tuple(part.shape) for part in parts]
    if len(set(shapes)) > 1:
        raise InputError(f"components of {layer!r} must have one shape, not {shapes}")
    return torch.cat([part.T if part.ndim == 2 else part for part in parts])
