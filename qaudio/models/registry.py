"""Architecture names and the one function that builds a network from a name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qaudio.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from qaudio.frontend import FrontendConfig
    from qaudio.models.base import AudioModel

# Known without importing torch or timm, so that `qaudio list` stays quick.
FAMILIES = ("cnn6", "cnn10", "cnn14", "resnet38")
TRANSFORMERS = ("ast_tiny", "ast_small", "ast_base")
# Of timm's networks, those that stand for a family at a size beside which a QCNN is of interest.
IMAGE_NETWORKS = (
    "timm:convnext_atto",
    "timm:convnext_tiny",
    "timm:efficientnet_b0",
    "timm:mobilenetv3_large_100",
    "timm:mobilenetv3_small_100",
)
# EfficientAT's; the number is the width multiplier times ten.
MOBILENETS = tuple(
    f"mn{width}" for width in ("01", "02", "04", "05", "06", "08", "10", "20", "30", "40")
)
ARCHITECTURES = (
    *sorted([*FAMILIES, *(f"q{family}" for family in FAMILIES)]),
    *TRANSFORMERS,
    *MOBILENETS,
    *IMAGE_NETWORKS,
)
_NAME = re.compile(rf"(?P<q>q?)(?P<family>{'|'.join(FAMILIES)})(?:_(?P<width>\d{{3}}))?")
_TRANSFORMER = re.compile(rf"(?:{'|'.join(TRANSFORMERS)})(?:_s(?P<stride>[1-9]|1[0-6]))?")
# Of a name, a number of classes, front-end settings and widths.
Builder = Callable[[str, int, "FrontendConfig", dict[str, int]], "AudioModel"]


@dataclass(frozen=True)
class _Registered:
    build: Builder
    widths: dict[str, int]
    quaternion: bool


_registered: dict[str, _Registered] = {}


def register(
    name: str,
    build: Builder,
    *,
    widths: dict[str, int] | None = None,
    quaternion: bool = False,
) -> None:
    """Add an architecture to those that `create_model`, recipes and entries know by name.

    Whoever loads an entry of it imports the module that registers it first: entries hold no code.

    Args:
        name: lower-case letters, digits and underscores.
        build: an `AudioModel` class, or a function, of (name, num_classes, frontend, widths).
        widths: output channels of the unpruned network by layer name, where it can be pruned.
        quaternion: its front-end is "delta" unless another is asked for, and widths are multiples
            of 4.

    Raises:
        ValueError: for a name of another form, or one that qaudio's own architectures have.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(f"{name!r}: use lower-case letters, digits and underscores")
    if name in ARCHITECTURES or _NAME.fullmatch(name) or _TRANSFORMER.fullmatch(name):
        raise InputError(f"{name!r} is one of qaudio's own architectures: use another name")
    _registered[name] = _Registered(build, dict(widths or {}), quaternion)


def architectures() -> list[str]:
    """Names of all architectures, those that were registered last."""
    return [*ARCHITECTURES, *_registered]


def is_quaternion(config: Mapping[str, Any]) -> bool:
    """Whether a model's config is of a network of quaternion layers.

    Configs of earlier versions do not say; the architecture's registration does then, and one that
    is not registered counts as real.
    """
    name = config["architecture"]
    if "quaternion" in config:
        return bool(config["quaternion"])
    if name in _registered:
        return _registered[name].quaternion
    match = _NAME.fullmatch(name)
    return bool(match and match["q"])


def parse_architecture(name: str) -> tuple[str, bool, float]:
    """Family, quaternion or not, and width multiplier of a CNN's name such as "qcnn10_050".

    Raises:
        ValueError: for an unknown name; lists the known ones.
    """
    match = _NAME.fullmatch(name)
    if not match or match["width"] == "000":
        close = difflib.get_close_matches(name, architectures(), n=3)
        similar = f"similar: {', '.join(close)}; " if close else ""
        raise InputError(
            f"unknown architecture {name!r}; {similar}known: {', '.join(architectures())}; CNNs "
            "with an optional width in percent, as in qcnn10_050; transformers with an optional "
            "stride of their patches, as in ast_tiny_s10; timm:NAME for any other of timm's "
            "networks; and your own, once the module that registers it is imported"
        )
    return match["family"], bool(match["q"]), int(match["width"] or 100) / 100


def create_model(
    arch: str,
    *,
    num_classes: int,
    frontend: FrontendConfig | dict[str, Any] | None = None,
    widths: dict[str, int] | None = None,
) -> AudioModel:
    """A freshly initialised network.

    Args:
        arch: one of `ARCHITECTURES`; a CNN with an optional width in percent ("qcnn10_050"), a
            transformer with an optional stride of its 16×16 patches, which then overlap
            ("ast_tiny_s10"), EfficientAT's mn01 to mn40, any of timm's image networks
            ("timm:mobilenetv3_small_100"), or one that `register` added.
        num_classes: outputs.
        frontend: settings, whole or in part; those left out are PANNs', and the kind is "logmel"
            for real nets, "delta" for quaternion ones and "efficientat" for mn*.
        widths: output channels by layer name, for pruned nets; None for the unpruned net.

    Raises:
        ValueError: for an unknown architecture, front-end setting or layer, or a bad width.
    """
    from qaudio.frontend import FrontendConfig
    from qaudio.models.base import check_classes

    image, transformer = arch.startswith("timm:"), _TRANSFORMER.fullmatch(arch)
    family, quaternion, multiplier = ("", False, 1.0)
    own_kind = _registered.get(arch)
    if own_kind is not None:
        quaternion = own_kind.quaternion
    elif not (image or transformer or arch in MOBILENETS):
        family, quaternion, multiplier = parse_architecture(arch)
    check_classes(num_classes)
    kind = "delta" if quaternion else "efficientat" if arch in MOBILENETS else "logmel"
    if frontend is None:
        frontend = FrontendConfig.from_dict({"kind": kind})
    elif isinstance(frontend, dict):
        frontend = FrontendConfig.from_dict({"kind": kind} | frontend)
    else:
        frontend = replace(frontend)

    def given(dense: dict[str, int]) -> dict[str, int]:
        return dense if widths is None else _checked(arch, dict(widths), dense, quaternion)

    if own_kind is not None:
        return own_kind.build(arch, num_classes, frontend, given(own_kind.widths))
    if image:
        from qaudio.models.image import ImageBackbone

        given({})
        return ImageBackbone(arch, num_classes, frontend)
    if arch in MOBILENETS:
        from qaudio.models.mobilenet import MobileNet

        given({})
        return MobileNet(arch, int(arch[2:]) / 10, num_classes, frontend)
    if transformer:
        from qaudio.models import transformer as ast

        size, stride = arch.split("_")[1], int(transformer["stride"] or ast.PATCH)
        own = given(ast.dense_widths(size))
        return ast.AST(arch, size, stride, num_classes, frontend, own)
    from qaudio.models import cnn, resnet

    if family == "resnet38":
        own = given(resnet.dense_widths(multiplier))
        return resnet.ResNet(arch, num_classes, frontend, own, quaternion)
    own = given(cnn.dense_widths(family, multiplier))
    return cnn.CNN(arch, family, num_classes, frontend, own, quaternion)


def from_config(config: dict[str, Any]) -> AudioModel:
    """The network that an `AudioModel.config` describes, freshly initialised.

    Raises:
        ValueError: for a missing key, and as `create_model`.
    """
    missing = {"architecture", "num_classes", "frontend", "widths"} - set(config)
    if missing:
        raise InputError(f"config lacks {', '.join(sorted(missing))}")
    model = create_model(
        config["architecture"],
        num_classes=config["num_classes"],
        frontend=config["frontend"],
        widths=config["widths"],
    )
    model.labels = config.get("labels")
    model.task = config.get("task", "multiclass")
    model.eval_seconds = config.get("eval_seconds")
    model.padded = config.get("padded", False)
    return model


def tensors_of(config: dict[str, Any]) -> dict[str, Tensor]:
    """Names, shapes and types of the tensors of the network that a config describes.

    They are on torch's meta device: nothing of their size is allocated. Raises as `from_config`.
    """
    import torch

    with torch.device("meta"):
        return from_config(config).state_dict()


def _checked(
    arch: str, widths: dict[str, int], dense: dict[str, int], quaternion: bool
) -> dict[str, int]:
    if set(widths) != set(dense):
        wrong = sorted(set(widths) ^ set(dense))
        raise InputError(f"widths of {arch} must name its layers; missing or unknown: {wrong}")
    for name, width in widths.items():
        step = 4 if quaternion else 1
        most = dense[name]  # a pruned network is never wider than the one it comes from
        valid = isinstance(width, int) and not isinstance(width, bool) and 0 < width <= most
        if not valid or width % step:
            raise InputError(
                f"width of {arch}'s {name} must be a multiple of {step} from {step} to {most}, "
                f"not {width!r}"
            )
    return {name: widths[name] for name in dense}
