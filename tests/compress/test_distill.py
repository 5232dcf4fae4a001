import math

import pytest
import torch
import torch.nn.functional as F

from qaudio.compress.distill import bce, features, kl_logits, published

T = 2.0


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def softmax(values, temperature):
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def divergence(teacher, student):
    return sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


STUDENT, TEACHER = (1.0, -2.0, 0.5), (3.0, 0.0, -1.0)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_kl_on_logits_by_hand(temperature) -> None:
    by_hand = temperature**2 * divergence(
        softmax(TEACHER, temperature), softmax(STUDENT, temperature)
    )
    found = kl_logits(tensor(STUDENT), tensor(TEACHER), temperature=temperature)
    assert found.item() == pytest.approx(by_hand)
    # Over a batch: the mean over clips of the sum over classes.
    batch = kl_logits(tensor(STUDENT, TEACHER), tensor(TEACHER, TEACHER), temperature=temperature)
    assert batch.item() == pytest.approx(by_hand / 2)


def test_the_published_loss_by_hand() -> None:
    teacher, student = ([sigmoid(v) for v in values] for values in (TEACHER, STUDENT))
    by_hand = T**2 * divergence(softmax(teacher, T), softmax(student, T))
    assert published(tensor(STUDENT), tensor(TEACHER)).item() == pytest.approx(by_hand)
    # For one label a clip the probabilities are a softmax's.
    by_hand = T**2 * divergence(softmax(softmax(TEACHER, 1), T), softmax(softmax(STUDENT, 1), T))
    found = published(tensor(STUDENT), tensor(TEACHER), task="multiclass")
    assert found.item() == pytest.approx(by_hand)


def test_bce_by_hand() -> None:
    by_hand = 0.0
    for s, t in zip(STUDENT, TEACHER, strict=True):
        p, q = sigmoid(t), sigmoid(s)
        by_hand -= (p * math.log(q) + (1 - p) * math.log(1 - q)) / 3
    assert bce(tensor(STUDENT), tensor(TEACHER)).item() == pytest.approx(by_hand)


def test_features_by_hand() -> None:
    student, teacher = tensor((3.0, 4.0), (1.0, 0.0)), tensor((0.0, 5.0), (7.0, 0.0))
    # 2 − 2·cos: cos is .8 for the first clip and 1 for the second.
    assert features(student, teacher).item() == pytest.approx(0.2)
    assert features(10 * student, 0.1 * teacher).item() == pytest.approx(0.2)
    assert features(student, -student).item() == pytest.approx(4)


@pytest.mark.parametrize("loss", [published, kl_logits, bce, features])
def test_the_teachers_own_answer_is_the_best_one(loss) -> None:
    teacher = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    student = teacher.detach().clone().requires_grad_()
    loss(student, teacher).backward()
    assert student.grad.abs().max() < 1e-12
    assert teacher.grad is None
    other = student.detach() + 0.1 * torch.randn(6, 5, dtype=torch.float64)
    assert loss(other, teacher) > loss(student, teacher)


@pytest.fixture
def audioset_like():
    """A student that gives every class its base rate; a teacher sure of two classes of 527."""
    generator = torch.Generator().manual_seed(0)
    clips, classes = 32, 527
    labels = torch.zeros(clips, classes, dtype=torch.float64)
    labels[torch.arange(clips), torch.randint(classes // 2, (clips,), generator=generator)] = 1
    labels[torch.arange(clips), torch.randint(classes // 2, (clips,), generator=generator) - 1] = 1
    noise = torch.randn(2, clips, classes, generator=generator, dtype=torch.float64)
    student = math.log(0.008 / 0.992) + 0.1 * noise[0]
    teacher = torch.where(labels > 0, 2.0, -6.0) + noise[1]
    return student, teacher, labels


def gradient(loss, student, target):
    student = student.clone().requires_grad_()
    return torch.autograd.grad(loss(student, target), student)[0]


def test_the_published_soft_target_is_almost_flat_over_many_classes(audioset_like) -> None:
    student, teacher, labels = audioset_like
    target = F.softmax(teacher.sigmoid() / T, dim=-1)
    assert target.max() / target.min() < math.exp(1 / T) < 1.65
    hard = gradient(F.binary_cross_entropy_with_logits, student, labels).norm()
    assert 50 < hard / gradient(published, student, teacher).norm() < 500
    # The teacher's sigmoids as targets, and KL on logits, averaged over classes as the BCE is.
    assert 0.5 < hard / gradient(bce, student, teacher).norm() < 2
    on_logits = gradient(kl_logits, student, teacher).norm() / student.shape[1]
    assert 0.1 < hard / on_logits < 10
