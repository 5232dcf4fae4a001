"""Reading and writing the networks of entries: weights, their check by header, probe."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialised

from qaudio import __version__
from qaudio.errors import EntryError, entry_errors
from qaudio.evaluation.predictions import Predictions
from qaudio.evaluation.result import Scaling
from qaudio.models.base import AudioModel, check_model, check_weights, evaluating
from qaudio.models.registry import from_config, tensors_of
from qaudio.paths import locked, replace_folder
from qaudio.zoo.schema import SCHEMA_VERSION, Config, parse_config
from qaudio.zoo.store import (
    NOT_OURS,
    check_hash,
    entry_name,
    file_hash,
    file_of,
    read_config,
    refuse_other,
    to_json,
)

PROBE_TOLERANCE = 1e-3  # of the logits' range, between machines and library versions


def load_weights(folder: Path, weights: str = "model.safetensors") -> AudioModel:
    """The network of an entry with one of its files of weights; raises EntryError."""
    config = read_config(folder)
    if "model.safetensors" not in config.files:
        raise EntryError(f"{folder.name}: holds results without weights; its recipe trains them")
    path = check_hash(folder, config, weights)
    try:
        _check_tensors(path, tensors_of(config.model), f"{entry_name(folder)}: {weights}")
        model = from_config(config.model).float()  # whatever torch's default dtype is
    except (ValueError, TypeError, RuntimeError) as error:
        raise EntryError(f"{entry_name(folder)}: config.json: {error}") from None
    try:
        state = load_file(path)
        check_weights(state)
        model.load_state_dict(state)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise EntryError(f"{entry_name(folder)}: {weights} is not readable ({error})") from None
    if weights == "model.safetensors" and config.calibration:
        model.temperature = config.calibration.temperature
        model.thresholds = config.calibration.thresholds
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
        kinds = ("F", "BF") if expected[name].is_floating_point() else ("I", "U")
        if not kind.startswith(kinds):
            raise EntryError(
                f"{where}: tensor {name}: expected {expected[name].dtype}, found {kind}"
            )


def write_entry(
    model: AudioModel,
    folder: str | Path,
    *,
    license: str | None = None,
    calibration: Scaling | None = None,
    folds: Mapping[str, Mapping[str, torch.Tensor] | Path] | None = None,
    extra: Mapping[str, str | Predictions] | None = None,
    weights: bool = True,
    write_card: Callable[[Path, Config], object] | None = None,
) -> Path:
    """Write an entry: all of it, or nothing.

    Args:
        model: its weights become model.safetensors, its config config.json.
        folder: as in `qaudio.save`, and so are the others.
        calibration: of its results.
        extra: every other file, by name.
        write_card: called with the new folder and the config, once the other files are there; it
            writes what follows from them and notes its format in the config.

    Raises:
        EntryError: when the folder holds something else, the weights are NaN or infinite, or the
            entry could not be read again, such as with a layer that its config does not know of.
        TypeError: for something else than a model, or weights that are computed from others.
    """
    folder = Path(folder)
    unreadable = f"{folder}: would not be read again"
    refuse_other(folder)
    check_model(model, changed=True)
    with entry_errors(f"{folder}: not saved"):
        for state in (model.state_dict(), *(folds or {}).values()) if weights else ():
            if not isinstance(state, Path):
                check_weights(state)

    def write(new: Path) -> None:
        states = {"model.safetensors": model.state_dict(), **(folds or {})} if weights else {}
        for name, state in states.items():
            (new / name).parent.mkdir(exist_ok=True)
            if isinstance(state, Path):
                shutil.copyfile(state, new / name)
                continue
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
            # Not save_file, whose files are nobody's but their owner's to read.
            (new / name).write_bytes(serialised(plain, {"format": "pt"}))
        if weights:
            with entry_errors(unreadable):
                expected = tensors_of(model.config)
            for name in states:
                _check_tensors(new / name, expected, f"{unreadable}: {name}")
            loaded = model
            if model.classifier.weight.dtype != torch.float32:  # which `load` gives
                loaded = from_config(model.config).float()
                loaded.load_state_dict(model.state_dict())
            (new / "probe.safetensors").write_bytes(serialised(make_probe(loaded)))
        config = new_config(model, license)
        config.calibration = calibration
        for name, one in (extra or {}).items():
            (new / name).parent.mkdir(exist_ok=True)
            if isinstance(one, Predictions):
                one.save(new / name)
            else:
                (new / name).write_text(one, encoding="utf-8", newline="\n")
        if write_card is not None:
            write_card(new, config)
        names = sorted(p.relative_to(new).as_posix() for p in new.rglob("*") if p.is_file())
        config.files = {name: file_hash(new / name) for name in names}
        with entry_errors(unreadable):
            parse_config(config.to_dict())
        (new / "config.json").write_text(to_json(config), encoding="utf-8", newline="\n")

    with locked(folder):
        replace_folder(folder, write, keep=NOT_OURS)
    return folder


def new_config(model: AudioModel, license: str | None) -> Config:
    """config.json of an entry that holds a model, without files."""
    return Config(
        schema_version=SCHEMA_VERSION, qaudio_version=__version__, **model.config.to_dict(),
        license=license, files={},
    )  # fmt: skip


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
    with evaluating(model) as net, torch.no_grad():
        return net(waveform.to(model.classifier.weight.device)).float().cpu()
