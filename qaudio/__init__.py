"""qaudio: a model zoo of quaternion convolutional networks for audio classification.

Public names are imported when first used: `import qaudio` does no work.
"""

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from qaudio.models import storage

__version__ = "0.1.0"

_NAMES = {
    "qaudio.zoo.resolve": ("list_models", "load"),
    "qaudio.models.registry": ("create_model", "register"),
    "qaudio.cards.entries": ("save", "verify", "push"),
    "qaudio.zoo.hub": ("pull",),
    "qaudio.prediction": ("predict", "Prediction"),
    "qaudio.inference.files": ("embed_files", "predict_files"),
    "qaudio.compress.prune": ("plan", "prune", "Plan"),
    "qaudio.compress.cost": ("cost",),
    "qaudio.compress.measured": ("Cost",),
    "qaudio.deploy.optimize": ("optimize",),
    "qaudio.deploy.onnx.export": ("export_onnx",),
    "qaudio.deploy.onnx.runtime": ("OnnxModel",),
    "qaudio.models.base": ("AudioModel",),
    "qaudio.frontend_settings": ("FrontendConfig",),
    "qaudio.quaternion.layers": ("QConv2d", "QLinear"),
    "qaudio.data.datamodule": ("AudioDataModule",),
    "qaudio.data.benchmarks.registry": ("register_benchmark",),
    "qaudio.data.clip": ("Clip",),
    "qaudio.data.benchmarks.esc50": ("ESC50",),
    "qaudio.data.benchmarks.gtzan": ("GTZAN",),
    "qaudio.data.benchmarks.ravdess": ("RAVDESS",),
    "qaudio.data.benchmarks.audioset": ("AudioSet", "AudioPool"),
    "qaudio.data.benchmarks.folder": ("AudioFolder",),
    "qaudio.data.pool": ("Mixing",),
    "qaudio.training.classifier": ("Classifier",),
    "qaudio.training.compression": ("PrunedClassifier", "DistilledClassifier"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from qaudio.cards.entries import push, save, verify
    from qaudio.compress.cost import cost
    from qaudio.compress.measured import Cost
    from qaudio.compress.prune import Plan, plan, prune
    from qaudio.data.benchmarks.audioset import AudioPool, AudioSet
    from qaudio.data.benchmarks.esc50 import ESC50
    from qaudio.data.benchmarks.folder import AudioFolder
    from qaudio.data.benchmarks.gtzan import GTZAN
    from qaudio.data.benchmarks.ravdess import RAVDESS
    from qaudio.data.benchmarks.registry import register_benchmark
    from qaudio.data.clip import Clip
    from qaudio.data.datamodule import AudioDataModule
    from qaudio.data.pool import Mixing
    from qaudio.deploy.onnx.export import export_onnx
    from qaudio.deploy.onnx.runtime import OnnxModel
    from qaudio.deploy.optimize import optimize
    from qaudio.frontend_settings import FrontendConfig
    from qaudio.inference.files import embed_files, predict_files
    from qaudio.models.base import AudioModel
    from qaudio.models.registry import create_model, register
    from qaudio.prediction import Prediction, predict
    from qaudio.quaternion.layers import QConv2d, QLinear
    from qaudio.training.classifier import Classifier
    from qaudio.training.compression import DistilledClassifier, PrunedClassifier
    from qaudio.zoo.hub import pull
    from qaudio.zoo.resolve import list_models, load


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'qaudio' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _call(name: str, *args: Any, **kwargs: Any) -> Any:
    return __getattr__(name)(*args, **kwargs)


storage.save, storage.load, storage.push = (partial(_call, n) for n in ("save", "load", "push"))
