"""Architecture names and the one function that builds a network from a name."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qaudio.frontend import FrontendConfig
    from qaudio.models.base import AudioModel

# Known without importing torch, so that `qaudio list` stays quick.
FAMILIES = ("cnn6", "cnn10", "cnn14", "resnet38")
ARCHITECTURES = tuple(sorted([*FAMILIES, *(f"q{family}" for family in FAMILIES)]))
_NAME = re.compile(rf"(?P<q>q?)(?P<family>{'|'.join(FAMILIES)})(?:_(?P<width>\d{{3}}))?")
MAX_WIDTH = 65536


def parse_architecture(name: str) -> tuple[str, bool, float]:
    """Family, quaternion or not, and width multiplier of a name such as "qcnn10_050".

    Raises:
        ValueError: for an unknown name; lists the known ones.
    """
    match = _NAME.fullmatch(name)
    if not match or match["width"] == "000":
        raise ValueError(
            f"unknown architecture {name!r}; known: {', '.join(ARCHITECTURES)}, each with an "
            "optional width in percent, as in qcnn10_050"
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
        arch: one of `ARCHITECTURES`, with an optional width in percent: "qcnn10_050".
        num_classes: outputs.
        frontend: settings, whole or in part; those left out are PANNs', and the kind is "logmel"
            for real nets and "delta" for quaternion ones.
        widths: output channels by layer name, for pruned nets; None for the unpruned net.

    Raises:
        ValueError: for an unknown architecture, front-end setting or layer, or a bad width.
    """
    from qaudio.frontend import FrontendConfig
    from qaudio.models import cnn, resnet
    from qaudio.models.base import check_classes

    family, quaternion, multiplier = parse_architecture(arch)
    check_classes(num_classes)
    kind = "delta" if quaternion else "logmel"
    if frontend is None:
        frontend = FrontendConfig.from_dict({"kind": kind})
    elif isinstance(frontend, dict):
        frontend = FrontendConfig.from_dict({"kind": kind} | frontend)
    else:
        frontend = replace(frontend)
    residual = family == "resnet38"
    dense = resnet.dense_widths(multiplier) if residual else cnn.dense_widths(family, multiplier)
    widths = dense if widths is None else _checked(arch, dict(widths), dense, quaternion)
    if residual:
        return resnet.ResNet(arch, num_classes, frontend, widths, quaternion)
    return cnn.CNN(arch, family, num_classes, frontend, widths, quaternion)


def from_config(config: dict[str, Any]) -> AudioModel:
    """The network that an `AudioModel.config` describes, freshly initialised.

    Raises:
        ValueError: for a missing key, and as `create_model`.
    """
    missing = {"architecture", "num_classes", "frontend", "widths"} - set(config)
    if missing:
        raise ValueError(f"config lacks {', '.join(sorted(missing))}")
    model = create_model(
        config["architecture"],
        num_classes=config["num_classes"],
        frontend=config["frontend"],
        widths=config["widths"],
    )
    model.labels = config.get("labels")
    model.task = config.get("task", "multiclass")
    model.eval_seconds = config.get("eval_seconds")
    return model


def _checked(
    arch: str, widths: dict[str, int], dense: dict[str, int], quaternion: bool
) -> dict[str, int]:
    if set(widths) != set(dense):
        wrong = sorted(set(widths) ^ set(dense))
        raise ValueError(f"widths of {arch} must name its layers; missing or unknown: {wrong}")
    for name, width in widths.items():
        step = 4 if quaternion else 1
        valid = isinstance(width, int) and not isinstance(width, bool) and 0 < width <= MAX_WIDTH
        if not valid or width % step:
            raise ValueError(
                f"width of {arch}'s {name} must be a multiple of {step} from {step} to "
                f"{MAX_WIDTH}, not {width!r}"
            )
    return {name: widths[name] for name in dense}
