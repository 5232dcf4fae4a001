"""Architectures by name: what the package knows of each, and the networks built from them.

A module registers its networks with the decorator below. `OWN` names those of this package without
importing them, so that `qaudio list` and `qaudio compare` load no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from qaudio.errors import InputError
from qaudio.frontend_settings import FrontendConfig, Kind
from qaudio.models.config import ModelConfig
from qaudio.text import similar

if TYPE_CHECKING:
    from torch import Tensor

    from qaudio.models.base import AudioModel

Builder = Callable[[ModelConfig], "AudioModel"]
Widths = dict[str, int] | Callable[[str], dict[str, int]]


class Own(NamedTuple):
    """A module of this package, and names of the networks that it registers."""

    module: str
    names: tuple[str, ...]
    quaternion: tuple[str, ...] = ()


OWN = (
    Own("qaudio.models.cnn", ("cnn6", "cnn10", "cnn14"), ("qcnn6", "qcnn10", "qcnn14")),
    Own("qaudio.models.resnet", ("resnet38",), ("qresnet38",)),
    Own("qaudio.models.transformer", ("ast_tiny", "ast_small", "ast_base")),
    Own(
        "qaudio.models.mobilenet",
        ("mn01", "mn02", "mn04", "mn05", "mn06", "mn08", "mn10", "mn20", "mn30", "mn40"),
    ),
    # Those that stand for a family at a size beside which a QCNN is of interest.
    Own(
        "qaudio.models.image",
        (
            "timm:mobilenetv3_small_100", "timm:mobilenetv3_large_100", "timm:efficientnet_b0",
            "timm:convnext_atto", "timm:convnext_tiny",
        ),
    ),
)  # fmt: skip


class Card(NamedTuple):
    """What model cards say of an architecture.

    Attributes:
        scratch: of one that was trained from scratch.
    """

    title: str
    scratch: str = ""
    papers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """What the package knows of an architecture, as `register` takes it."""

    name: str
    pattern: str
    build: Builder
    widths: Widths
    quaternion: bool
    frontend: Kind
    card: Card
    importer: str | None
    blocks: bool

    def dense_widths(self, name: str) -> dict[str, int]:
        """Output channels of the unpruned network of a name."""
        return self.widths(name) if callable(self.widths) else dict(self.widths)


_registered: dict[str, Architecture] = {}  # by name


def register(
    name: str,
    build: Builder | None = None,
    *,
    pattern: str | None = None,
    widths: Widths | None = None,
    quaternion: bool = False,
    frontend: Kind | None = None,
    title: str | None = None,
    scratch: str = "",
    papers: tuple[str, ...] = (),
    importer: str | None = None,
    blocks: bool = False,
) -> Any:
    """Make an architecture known to `create_model`, recipes and entries; a decorator of its class.

    Whoever loads an entry of it imports the module that registers it first: entries hold no code.
    Commands import the modules that the environment variable QAUDIO_IMPORT names.

    Args:
        name: lower-case letters, digits and underscores.
        build: an `AudioModel` class, or a function, of a `ModelConfig`; None: what is decorated.
        pattern: regular expression of all its names, where there are several sizes.
        widths: output channels of the unpruned network by layer name, or a function of its name,
            where it can be pruned.
        quaternion: it has quaternion layers: widths are multiples of 4.
        frontend: kind that it takes unless asked otherwise; None: "delta" for quaternion layers,
            else "logmel".
        title: what cards call it; None: "CNN" or "quaternion CNN".
        scratch: what cards say of one that was trained from scratch.
        papers: BibTeX of where it comes from.
        importer: whose published checkpoints `qaudio import` reads into it.
        blocks: it is made of `ConvBlock`s and `BasicBlock`s alone, which `qaudio.optimize` fuses.

    Raises:
        ValueError: for a name of another form, or one that qaudio's own architectures have.
    """
    if build is None:
        settings = {key: value for key, value in locals().items() if key not in ("name", "build")}

        def decorate(decorated: Builder) -> Builder:
            register(name, decorated, **settings)
            return decorated

        return decorate
    if build.__module__ not in {own.module for own in OWN}:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise InputError(f"{name!r}: use lower-case letters, digits and underscores")
        if _home(name) and lookup(name):
            raise InputError(f"{name!r} is one of qaudio's own architectures: use another name")
    _registered[name] = Architecture(
        name, pattern or name, build, widths or {}, quaternion,
        frontend or ("delta" if quaternion else "logmel"),
        Card(title or _title(quaternion), scratch, papers), importer, blocks,
    )  # fmt: skip


def architectures() -> list[str]:
    """Names of all architectures, those that were registered last."""
    own = [name for home in OWN for name in (*home.names, *home.quaternion)]
    return [*own, *(name for name in _registered if name not in own)]


def registered() -> list[Architecture]:
    """Every architecture; imports the modules of this package's own."""
    for home in OWN:
        import_module(home.module)
    return list(_registered.values())


def lookup(name: str) -> Architecture | None:
    """As `find`; None for an unknown name."""
    home = _home(name)
    if home is not None:
        import_module(home.module)
    return next((k for k in _registered.values() if re.fullmatch(k.pattern, name)), None)


def find(name: str) -> Architecture:
    """The architecture of a name such as "qcnn10_050".

    Raises:
        ValueError: for an unknown name; lists the known ones.
    """
    found = lookup(name)
    if found is None:
        known = architectures()
        if re.fullmatch(r"[a-z0-9_-]+\.\w+", name):
            raise InputError(
                f"unknown architecture {name!r}: of that form are entries, which are loaded: "
                f"qaudio.load({name!r}), or `source` in place of `arch`"
            )
        raise InputError(
            f"unknown architecture {name!r}{similar(name, known)}; known: {', '.join(known)}; CNNs "
            "with an optional width in percent, as in qcnn10_050; transformers with an optional "
            "stride of their patches, as in ast_tiny_s10; timm:NAME for any other of timm's "
            "networks; and your own, once the module that registers it is imported, which "
            "QAUDIO_IMPORT=MODULE does for commands"
        )
    return found


def _home(name: str) -> Own | None:
    """The module of this package that may register a name: it has the part before "_" or ":"."""

    def stem(name: str) -> str:
        return re.split("[_:]", name)[0]

    stems = ((home, {stem(one) for one in (*home.names, *home.quaternion)}) for home in OWN)
    return next((home for home, known in stems if stem(name) in known), None)


def is_quaternion(architecture: str, stored: bool | None = None) -> bool:
    """Whether a network has quaternion layers.

    Args:
        architecture: its name.
        stored: what its config says. Configs of earlier versions do not say: the architecture's
            registration does then, and one that is not registered counts as real.
    """
    if stored is not None:
        return stored
    home = _home(architecture)
    if home is not None:  # known without importing it
        return any(f"{architecture}_".startswith(f"{one}_") for one in home.quaternion)
    known = lookup(architecture)
    return known is not None and known.quaternion


def _title(quaternion: bool) -> str:
    return "quaternion CNN" if quaternion else "CNN"


def card_of(architecture: str, quaternion: bool) -> Card:
    """What model cards say of an architecture; little where it is not registered."""
    known = lookup(architecture)
    return Card(_title(quaternion)) if known is None else known.card


def create_model(
    arch: str,
    *,
    num_classes: int,
    frontend: FrontendConfig | dict[str, Any] | None = None,
    widths: dict[str, int] | None = None,
) -> AudioModel:
    """A freshly initialised network.

    Args:
        arch: one of `architectures()`; a CNN with an optional width in percent ("qcnn10_050"), a
            transformer with an optional stride of its 16×16 patches, which then overlap
            ("ast_tiny_s10"), EfficientAT's mn01 to mn40, any of timm's image networks
            ("timm:mobilenetv3_small_100"), or one that `register` added.
        num_classes: outputs.
        frontend: settings, whole or in part; those left out are PANNs', and the kind is the
            architecture's own ("logmel", "delta" for quaternion nets, "efficientat" for mn*).
        widths: output channels by layer name, of layers that are narrower than the architecture's.

    Raises:
        ValueError: for an unknown architecture, front-end setting or layer, or a bad width.
    """
    known = find(arch)
    if not isinstance(frontend, FrontendConfig):
        frontend = FrontendConfig.from_dict({"kind": known.frontend} | (frontend or {}))
    given = known.dense_widths(arch) | (widths or {})
    return from_config(ModelConfig(arch, num_classes, given, frontend, quaternion=known.quaternion))


def from_config(config: ModelConfig | Mapping[str, Any]) -> AudioModel:
    """The network that an `AudioModel.config` describes, freshly initialised.

    Args:
        config: itself, or its `to_dict()`, or a whole config.json.

    Raises:
        ValueError: for a missing key, and as `create_model`.
    """
    if not isinstance(config, ModelConfig):
        named, stored = config.get("architecture", ""), config.get("quaternion")
        config = ModelConfig.from_dict(config, quaternion=is_quaternion(named, stored))
    known = find(config.architecture)
    if config.quaternion != known.quaternion:
        raise InputError(
            f"quaternion is {config.quaternion!r}, but {config.architecture} is registered with "
            f"{known.quaternion}"
        )
    return known.build(replace(config, widths=_checked(config, known)))


def tensors_of(config: ModelConfig | Mapping[str, Any]) -> dict[str, Tensor]:
    """Names, shapes and types of the tensors of the network that a config describes.

    They are on torch's meta device: nothing of their size is allocated. Raises as `from_config`.
    """
    import torch

    with torch.device("meta"):
        return from_config(config).state_dict()


def _checked(config: ModelConfig, known: Architecture) -> dict[str, int]:
    """Widths in the network's order; raises ValueError for those that it cannot have."""
    arch, widths = config.architecture, config.widths
    dense = known.dense_widths(arch)
    if set(widths) != set(dense):
        wrong = sorted(set(widths) ^ set(dense))
        raise InputError(f"widths of {arch} must name its layers; missing or unknown: {wrong}")
    step = 4 if known.quaternion else 1
    for name, width in widths.items():
        most = dense[name]  # a pruned network is never wider than the one it comes from
        valid = isinstance(width, int) and not isinstance(width, bool) and 0 < width <= most
        if not valid or width % step:
            raise InputError(
                f"width of {arch}'s {name} must be a multiple of {step} from {step} to {most}, "
                f"not {width!r}"
            )
    return {name: widths[name] for name in dense}
