from pathlib import Path

import pytest
import torch
from torch import nn

import qaudio
from qaudio.compress import distill
from qaudio.data.augment import Mixup, SpecAugment, WaveformAugment
from qaudio.training.results import parent_of, sources_of
from qaudio.training.teacher_cache import StoredAnswers
from tests.support.networks import FRONTEND, same_state
from tests.support.training import LABELS, PRUNING, data, fitted, network, trainer


def student(teacher, **settings):
    arguments = {"arch": "qcnn6_006", "frontend": FRONTEND, "lr": 0.01}
    return qaudio.DistilledClassifier(teacher, **arguments | settings)


@pytest.mark.parametrize("loss", ["kl_logits", "published", "features"])
@pytest.mark.parametrize(
    "teacher",
    [{"arch": "cnn6_013"}, {"arch": "qcnn6_013", "sample_rate": 16000, "n_mels": 40}],
    ids=["real", "other rate"],
)
def test_distillation_student_learns_from_any_teacher_which_stays_as_it_is(
    known, esc50_tree, loss, teacher
):
    net = network(**teacher)
    module = student(known(net), loss=loss, alpha=1.0, mixup=Mixup(0.3))
    run = fitted(module, data(esc50_tree), epochs=1)
    held = module.distillation.network
    assert same_state(held, net) and not held.training
    assert not any(p.grad is not None or p.requires_grad for p in held.parameters())
    trained = {id(p) for group in run.optimizers[0].param_groups for p in group["params"]}
    assert trained == {id(p) for p in module.parameters()}
    assert not trained & {id(p) for p in held.parameters()}
    assert not [name for name in module.state_dict() if "held" in name or "teacher" in name]
    assert (loss == "features") == any(n.startswith("projection") for n in module.state_dict())


def step_loss(module, sounds, alpha):
    module.distillation.alpha = alpha
    batch = next(iter(sounds.train_dataloader()))
    module.net.eval()
    module.log = lambda *_, **__: None
    return module.training_step(batch, 0).item()


def test_distillation_loss_is_the_weighted_sum_of_labels_and_teacher(known, esc50_tree):
    module, sounds = student(known(network("cnn6_013"))), data(esc50_tree)
    fitted(module, sounds, epochs=1)
    labels, teacher, half = (step_loss(module, sounds, alpha) for alpha in (0.0, 1.0, 0.5))
    assert half == pytest.approx((labels + teacher) / 2)
    plain = qaudio.Classifier("qcnn6_006", frontend=FRONTEND)
    plain.net, plain.log = module.net, lambda *_, **__: None
    assert plain.training_step(next(iter(sounds.train_dataloader())), 0).item() == pytest.approx(
        labels
    )


def test_distillation_teacher_and_student_see_the_same_mixture_masked_for_the_student_alone(
    known, esc50_tree
):
    """A student that is its own teacher agrees with it, mixed or not, until it is masked."""
    net = network()
    source = known(net)
    sounds = data(esc50_tree, augment=WaveformAugment(roll=1.0, gain_db=6, speed=0.1, flip=True))
    module = student(source, arch=None, frontend=None, source=source, mixup=Mixup(0.4))
    trainer(1, limit_train_batches=0).fit(module, sounds)
    assert step_loss(module, sounds, 1.0) < 1e-8
    answer = module.distillation.answer
    module.distillation.answer = lambda waveform, rate, mix: answer(waveform, rate)
    assert step_loss(module, sounds, 1.0) > 1e-6
    module.distillation.answer, module.spec_augment = answer, SpecAugment()
    assert step_loss(module, sounds, 1.0) > 1e-6


def test_distillation_teachers_classes_may_stand_in_another_order(known, esc50_tree):
    net = network(labels=LABELS[::-1])
    module, sounds = student(known(net)), data(esc50_tree)
    trainer(1, limit_train_batches=0).fit(module, sounds)
    waveform = torch.randn(3, 4000)
    with torch.no_grad():
        assert torch.allclose(module.distillation.answer(waveform, 8000)[1], net(waveform).flip(1))


def test_distillation_teacher_hears_the_sounds_at_its_own_rate(known, esc50_tree):
    net = network(sample_rate=16000, n_mels=40)
    module, sounds = student(known(net)), data(esc50_tree)
    trainer(1, limit_train_batches=0).fit(module, sounds)
    waveform = 0.1 * torch.randn(3, 4000)
    with torch.no_grad():
        _, taught = module.distillation.answer(waveform, module.sample_rate)
        assert torch.allclose(taught, net(waveform, module.sample_rate), atol=1e-5)
        assert not torch.allclose(taught, net(waveform), atol=1e-3)


def test_distillation_teacher_of_other_classes_is_refused_with_what_would_be_allowed(
    known, esc50_tree
):
    source = known(network(labels=["dog", "rain", "siren"]), "other.made")
    with pytest.raises(qaudio.errors.EntryError) as refused:
        fitted(student(source), data(esc50_tree))
    for part in ("other.made", "3 classes", "qcnn10_050.esc10", "loss features"):
        assert part in str(refused.value)
    fitted(student(source, loss="features"), data(esc50_tree), epochs=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "bce"}, "'bce' is for several labels"),
        ({"loss": "mse"}, "loss must be one of kl_logits, published, bce, features"),
        ({"alpha": 1.5}, "alpha must be in 0…1"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"mixup": Mixup(0.3), "store_teacher": "x"}, "leave mixup out"),
        ({"arch": None}, "exactly one of arch"),
    ],
    ids=str,
)
def test_distillation_contradictory_arguments_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        student("teacher", **settings)


def test_distillation_several_labels_are_distilled_by_bce(known):
    net, teacher = network(), network("cnn6_013")
    module = student("teacher", task="multilabel", loss="bce", alpha=1.0)
    module.net, module.projection, module.distillation.network = net, nn.Identity(), teacher
    waveform, targets = torch.randn(4, 4000), torch.randint(2, (4, 3)).float()
    embedding = net.embed(waveform)
    found = module.training_loss(embedding, targets, waveform, lambda x: x)
    p, q = teacher(waveform).sigmoid(), net.classifier(embedding).sigmoid()
    by_hand = -(p * q.log() + (1 - p) * (1 - q).log()).mean()
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("loss", ["kl_logits", "published", "features"])
def test_distillation_each_loss_is_the_one_of_its_name_at_its_temperature(loss, task):
    net, teacher = network(), network(seed=2)
    module = student("teacher", task=task, loss=loss, alpha=1.0, temperature=3.5)
    module.net, module.projection, module.distillation.network = net, nn.Identity(), teacher
    waveform = torch.randn(4, 4000)
    with torch.no_grad():
        embedding = net.embed(waveform)
        one, other = net.classifier(embedding), teacher(waveform)
        targets = torch.ones(4, 3) if task == "multilabel" else torch.arange(4) % 3
        found = module.training_loss(embedding, targets, waveform, lambda x: x)
        expected = {
            "kl_logits": distill.kl_logits(one, other, temperature=3.5)
            / (3 if task == "multilabel" else 1),
            "published": distill.published(one, other, temperature=3.5, task=task),
            "features": distill.features(embedding, teacher.embed(waveform)),
        }
    assert found.item() == pytest.approx(expected.pop(loss).item(), rel=1e-4)
    assert all(found.item() != pytest.approx(value.item(), rel=0.05) for value in expected.values())


def test_distillation_embeddings_that_shrink_in_steps_are_not_compared(known, esc50_tree):
    source = known(network("qcnn6_013"))
    start = {"arch": None, "frontend": None, "source": source, "loss": "features"}
    pruning = PRUNING | {"layers": "block2,fc1"}
    module = student(source, **start, **pruning, steps=2)
    with pytest.raises(ValueError, match="size changes with each step that prunes fc1"):
        fitted(module, data(esc50_tree), epochs=4)
    for settings in (pruning | {"steps": 1}, PRUNING | {"steps": 2}):
        fitted(student(source, **start, **settings), data(esc50_tree), epochs=4)


def test_distillation_stored_answers_are_computed_once_and_change_nothing(
    known, esc50_tree, tmp_path
):
    source = known(network("cnn6_013"))
    sounds = {"seconds": 1.0}  # as long as the clips: no random crops

    def run(**settings):
        module = student(source, **settings)
        fitted(module, data(esc50_tree, **sounds), epochs=2)
        return module

    plain, first = run(), run(store_teacher=str(tmp_path / "teacher"))
    # A clip's last bits may differ with its place in a batch, so the nets may, by as little.
    torch.testing.assert_close(plain.net.state_dict(), first.net.state_dict(), rtol=0, atol=1e-5)
    assert len(first.distillation.answers.rows) == 24
    (file,) = (tmp_path / "teacher").iterdir()
    assert file.name.startswith("cnn6_013-")

    def never(*_):
        raise AssertionError("the teacher was asked again")

    again = student(source, store_teacher=str(tmp_path / "teacher"))
    build = again.build

    def built(*arguments):
        net = build(*arguments)
        again.distillation.network.embed_features = never
        return net

    again.build = built
    fitted(again, data(esc50_tree, **sounds), epochs=2)
    assert same_state(again.net, first.net)


def test_distillation_trial_of_one_step_stores_no_answers(known, esc50_tree, tmp_path):
    module = student(known(network("cnn6_013")), store_teacher=str(tmp_path / "teacher"))
    fitted(module, data(esc50_tree, seconds=1.0), fast_dev_run=True)
    assert not (tmp_path / "teacher").exists()


def test_distillation_stored_answers_follow_the_order_of_the_students_classes(tmp_path):
    waveform, teacher = torch.randn(2, 4000), network("cnn6_013").eval()

    def taught(order):
        taught = student("teacher").distillation
        taught.network, taught._order = teacher, order
        taught.answers = StoredAnswers(tmp_path, teacher, "logits")
        _, found = taught.answer(waveform, 8000)
        taught.answers.save()
        return found

    first = taught([0, 1, 2])
    assert torch.equal(taught([2, 0, 1]), first[:, [2, 0, 1]])


@pytest.mark.parametrize(
    "settings",
    [{"augment": WaveformAugment(flip=True)}, {"seconds": 0.5}, {"seconds": 1.5}],
    ids=str,
)
def test_distillation_answers_are_not_stored_where_clips_change(
    known, esc50_tree, tmp_path, settings
):
    module = student(known(network()), store_teacher=str(tmp_path / "teacher"))
    with pytest.raises(ValueError, match="clips that repeat"):
        fitted(module, data(esc50_tree, **{"seconds": 1.0} | settings), epochs=1)


def test_distillation_pruning_and_distillation_combine(known, esc50_tree):
    source = known(network("qcnn6_013"))
    for steps in (1, 2):
        module = student(source, arch=None, frontend=None, source=source, steps=steps, **PRUNING)
        fitted(module, data(esc50_tree), epochs=4)
        assert module.net.widths == qaudio.plan(qaudio.load(source), **PRUNING).after
        assert parent_of(module) == ("known.esc10", "pruned and distilled from")
        assert sources_of(module) == [source, source]


def test_distillation_parent_says_where_a_student_comes_from(known):
    one, two = known(network()), known(network(), "other.esc10")
    start = {"arch": None, "frontend": None}
    for settings, how in (
        ({}, "distilled from"),
        ({"source": two} | start, "fine-tuned from other.esc10, distilled from"),
        ({"source": two, "ratio": 0.5} | start, "pruned from other.esc10, distilled from"),
    ):
        assert parent_of(student(one, **settings)) == ("known.esc10", how)
    assert sources_of(student(one, source=two, **start)) == [two, one]


def test_distillation_two_entries_of_one_name_are_two(known, tmp_path):
    one = known(network())
    two = str(qaudio.save(network(), tmp_path / "elsewhere" / "known.esc10"))
    student_of_both = student(one, arch=None, frontend=None, source=two)
    assert parent_of(student_of_both)[1] == "fine-tuned from known.esc10, distilled from"


def test_distillation_an_entry_by_name_and_by_folder_is_one(known, monkeypatch):
    one = Path(known(network()))
    monkeypatch.chdir(one.parent)
    taught = student(str(one), arch=None, frontend=None, source=one.name)
    assert parent_of(taught) == (one.name, "distilled from")
