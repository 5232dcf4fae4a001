"""Distillation: what a student's answer costs beside its teacher's, one function a loss.

Each function is the teacher's term alone; `DistilledClassifier` adds the labels' term to it.
Logits are (B, C), of the same classes in the same order; nothing is differentiated through the
teacher's.
"""

import torch.nn.functional as F
from torch import Tensor

from qaudio.models.config import Task

# All but "features", which compares embeddings, compare logits.
LOSSES = ("kl_logits", "published", "bce", "features")


def published(
    student: Tensor, teacher: Tensor, *, temperature: float = 2.0, task: Task = "multilabel"
) -> Tensor:
    """T²·KL(softmax(p_t / T) ‖ softmax(p_s / T)) of *probabilities* p, summed over classes.

    The soft term of QPANN's code, which adds it 1:1 to the labels' BCE, with T = 2. Its p is
    sigmoid(logits); for one label a clip it is generalised to p = softmax(logits). As p lies in
    0…1, the softmax of p / T is almost flat (at most e^(1/T) from least to most), and over many
    classes its gradient is about a hundredth of the BCE's: offered to be measured, not advised.

    Args:
        student, teacher: logits.
        temperature: T.
        task: "multilabel" (sigmoid) or "multiclass" (softmax).
    """
    if task == "multilabel":
        return kl_logits(student.sigmoid(), teacher.sigmoid(), temperature=temperature)
    return kl_logits(student.softmax(-1), teacher.softmax(-1), temperature=temperature)


def kl_logits(student: Tensor, teacher: Tensor, *, temperature: float = 2.0) -> Tensor:
    """T²·KL(softmax(t / T) ‖ softmax(s / T)) of logits, summed over classes.

    Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015; the factor T²
    keeps the gradient's size whatever T is.
    """
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.detach() / temperature, dim=-1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def bce(student: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross-entropy against sigmoid(t), averaged over classes: for several labels a clip.

    Schmid, Koutini & Widmer, *Efficient Large-Scale Audio Tagging via Transformer-to-CNN
    Knowledge Distillation*, ICASSP 2023.
    """
    return F.binary_cross_entropy_with_logits(student, teacher.detach().sigmoid())


def features(student: Tensor, teacher: Tensor) -> Tensor:
    """‖s/‖s‖ − t/‖t‖‖² of embeddings (B, D), averaged over clips: from 0 to 4.

    Romero et al., *FitNets*, ICLR 2015, on unit vectors (Zagoruyko & Komodakis, ICLR 2017), so
    that the loss does not depend on how large a network's embeddings are.
    """
    apart = F.normalize(student, dim=-1) - F.normalize(teacher.detach(), dim=-1)
    return apart.square().sum(dim=-1).mean()


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − cos(s, t) of embeddings (B, D), averaged over clips: half of `features`.

    The best of the losses of embeddings that S-SONDO compares.
    """
    return 1 - F.cosine_similarity(student, teacher.detach(), dim=-1).mean()
