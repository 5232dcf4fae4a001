"""ModelConfig: all that a network is built from and knows of itself, as config.json stores it.

Without torch: entries are listed and compared without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from qaudio.errors import InputError
from qaudio.frontend_settings import FrontendConfig

Task = Literal["multiclass", "multilabel"]
MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class ModelConfig:
    """What `qaudio.models.registry.from_config` rebuilds a network from.

    Attributes:
        architecture: name as `qaudio.create_model` takes it.
        num_classes: outputs.
        widths: output channels by layer name; smaller ones make a pruned network.
        frontend: settings of the front-end.
        labels: class names, or None.
        task: "multiclass" (softmax) or "multilabel" (sigmoid).
        eval_seconds: length that clips are cropped or padded to when scored; None: run whole.
        quaternion: whether its layers are quaternion layers.
        padded: whether clips that it was trained on were shorter; `qaudio.predict` pads such sounds
            as well then.

    Raises:
        ValueError: for a number of classes that is none, or another number of labels.
    """

    architecture: str
    num_classes: int
    widths: dict[str, int] = field(default_factory=dict)
    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    labels: list[str] | None = None
    task: Task = "multiclass"
    eval_seconds: float | None = None
    quaternion: bool = False
    padded: bool = False

    def __post_init__(self) -> None:
        count = self.num_classes
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"num_classes must be a positive integer, not {count!r}")
        if count > MOST_CLASSES:
            raise InputError(f"num_classes must be at most {MOST_CLASSES}, not {count}")
        if self.labels is not None and len(self.labels) != count:
            raise InputError(f"{count} classes, {len(self.labels)} labels: give each class a name")

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], *, quaternion: bool) -> ModelConfig:
        """Of what `to_dict` gives, or a whole config.json; keys of other things are let be.

        Args:
            stored: plain JSON.
            quaternion: for configs of earlier versions, which do not say.

        Raises:
            ValueError: for a missing key, unknown front-end settings, and as the class.
        """
        missing = {"architecture", "num_classes", "frontend", "widths"} - set(stored)
        if missing:
            raise InputError(f"config lacks {', '.join(sorted(missing))}")
        known = {one.name: stored[one.name] for one in fields(cls) if one.name in stored}
        known["frontend"] = FrontendConfig.from_dict(stored["frontend"])
        return cls(**{"quaternion": quaternion} | known)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        stored = {one.name: getattr(self, one.name) for one in fields(self)}
        stored |= {"widths": dict(self.widths), "frontend": self.frontend.to_dict()}
        if not self.padded:  # which the first entries' configs do not have
            del stored["padded"]
        return stored
