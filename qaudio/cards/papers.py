"""Papers that networks come from, as cards cite them, and what cards say of kinds of networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qaudio.data.benchmarks.descriptions import EFFICIENTAT, about
from qaudio.models.registry import FAMILIES, is_quaternion

PANNS = """@article{kong2020panns,
  title   = {{PANNs}: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition},
  author  = {Kong, Q. and others},
  journal = {IEEE/ACM Transactions on Audio, Speech, and Language Processing},
  volume  = {28},
  year    = {2020}
}"""
COMPRESSING = """@article{singh2026compressing,
  title   = {Compressing Quaternion Convolutional Neural Networks for Audio Classification},
  author  = {Singh, A. and Abrol, V. and Plumbley, M. D.},
  journal = {IEEE Transactions on Audio, Speech and Language Processing},
  volume  = {34},
  pages   = {1866--1875},
  year    = {2026},
  eprint  = {2510.21388},
  archivePrefix = {arXiv}
}"""
QPANN = """@inproceedings{chaudhary2024efficient,
  title     = {Efficient {CNNs} with Quaternion Transformations and Pruning for Audio Tagging},
  author    = {Chaudhary, A. and Singh, A. and Abrol, V. and Plumbley, M. D.},
  booktitle = {Interspeech},
  year      = {2024}
}"""
AST = """@inproceedings{gong2021ast,
  title     = {{AST}: Audio Spectrogram Transformer},
  author    = {Gong, Y. and Chung, Y.-A. and Glass, J.},
  booktitle = {Interspeech},
  year      = {2021}
}"""
TIMM = """@misc{wightman2019timm,
  title        = {PyTorch Image Models},
  author       = {Wightman, R.},
  year         = {2019},
  howpublished = {https://github.com/huggingface/pytorch-image-models}
}"""
# What is said of networks that are not PANNs', by the beginning of their architecture's name.
KINDS = {
    "mn": {
        "name": "MobileNetV3 as EfficientAT has it",
        "scratch": "It was trained from scratch on this benchmark alone, not from EfficientAT's "
        "weights.",
        "citation": EFFICIENTAT,
    },
    "ast_": {
        "name": "audio spectrogram transformer",
        "scratch": "It was trained from scratch on this benchmark alone, not transferred from "
        "ImageNet or AudioSet as the published AST was: its score says nothing of those that are.",
        "citation": AST,
    },
    "timm:": {
        "name": "image network of timm's",
        "scratch": "It was trained from scratch on this benchmark alone, not from timm's ImageNet "
        "weights.",
        "citation": TIMM,
    },
}


def kind_of(architecture: str) -> dict[str, str]:
    """Name, citation and remark of networks that are not PANNs'; {} of those."""
    found = (kind for prefix, kind in KINDS.items() if architecture.startswith(prefix))
    return next(found, {})


def papers(config: Mapping[str, Any], benchmark: str) -> list[str]:
    """BibTeX of what a network and its data come from."""
    architecture = config["architecture"]
    family, quaternion = architecture.split("_")[0], is_quaternion(config)
    found = [COMPRESSING, QPANN] if quaternion else []
    if family in FAMILIES or (quaternion and family.removeprefix("q") in FAMILIES):
        found.append(PANNS)
    others = kind_of(architecture).get("citation"), about(benchmark).get("citation")
    return found + [one for one in others if one]
