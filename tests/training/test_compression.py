import copy
from itertools import pairwise

import pytest
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

import qaudio
from qaudio.compress import distill, importance
from qaudio.compress.prune import plan_widths, prune, slice_tensors
from qaudio.data.augment import Mixup, SpecAugment, WaveformAugment
from qaudio.training import classifier, compression
from qaudio.training.callbacks import StepwisePruning, follow
from qaudio.training.checkpoints import last_checkpoint
from qaudio.training.teacher_cache import StoredAnswers
from tests.support.networks import FRONTEND

LABELS = ["dog", "rain", "clock_tick"]
PRUNING = {"ratio": 0.5, "min_channels": 4}


def network(arch="qcnn6_006", seed=1, labels=LABELS, **frontend):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = qaudio.create_model(arch, num_classes=len(labels), frontend=FRONTEND | frontend)
        for _ in range(10):  # norms that fit the sounds
            net.train()(0.1 * torch.randn(4, 8000))
    net.labels = list(labels)
    return net.eval()


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Save a network as an entry that may be used for any fold; returns its folder."""

    def save(net, name="known.esc10"):
        return str(qaudio.save(net, tmp_path / "zoo" / name))

    for module in (compression, classifier):
        monkeypatch.setattr(
            module, "load_for_split", lambda source, split, seed: qaudio.load(source)
        )
    return save


def data(root, **settings):
    return qaudio.ESC50(str(root), **{"esc10": True, "seconds": 0.5, "batch_size": 8} | settings)


def trainer(epochs, **settings):
    return Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
        **({"enable_checkpointing": False} | settings),
    )  # fmt: skip


def fitted(module, sounds, epochs=2, seed=0, **settings):
    seed_everything(seed, verbose=False)
    run = trainer(epochs, **{k: v for k, v in settings.items() if k != "ckpt_path"})
    run.fit(module, sounds, ckpt_path=settings.get("ckpt_path"))
    return run


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Pruning.


def stepwise(source, **settings):
    arguments = {"source": source, "lr": 0.01, "steps": 3, "head_dropout": 0.3}
    return qaudio.PrunedClassifier(**arguments | PRUNING | settings)


@pytest.mark.parametrize(
    ("optimizer", "target"),
    [
        ("adam", {"ratio": 0.5}),
        ("adamw", {"ratio": None, "target_macs": 0.4, "allocation": "global"}),
    ],
)
def test_steps_end_at_the_widths_of_the_plan_in_one(known, esc50_tree, target, optimizer):
    source = known(network("qcnn6_013"))
    module, seen = stepwise(source, optimizer=optimizer, **target), []

    class Watch(Callback):
        def on_train_epoch_end(self, trainer, module):
            seen.append(dict(module.net.widths))
            assert module.net.head_dropout.p == 0.3 and module.net.training
            state = trainer.optimizers[0].state
            for parameter in module.net.parameters():
                assert all(
                    value.shape == parameter.shape
                    for key, value in state[parameter].items()
                    if key != "step"
                )

    fitted(module, data(esc50_tree), epochs=6, callbacks=[Watch()])
    request = PRUNING | target
    assert module.net.widths == qaudio.plan(qaudio.load(source), **request).after
    assert seen[0] != seen[1] != seen[2] == module.net.widths  # epochs 0, 1 and 2 prune
    for earlier, later in pairwise(seen):
        assert all(later[name] <= earlier[name] for name in later)


def test_steps_are_equal_parts_at_equal_distances(known, esc50_tree):
    source, seen = known(network("qcnn6_013")), []

    class Watch(Callback):
        def on_train_epoch_end(self, trainer, module):
            seen.append(dict(module.net.widths))

    module = stepwise(source, ratio=0.5, steps=2, steps_share=0.67)
    fitted(module, data(esc50_tree), epochs=6, callbacks=[Watch()])
    whole = qaudio.plan(qaudio.load(source), **PRUNING | {"ratio": 0.5})
    half = {name: (whole.before[name] + whole.after[name]) / 2 for name in whole.kept}
    for name, width in half.items():
        widths = [widths[name] for widths in seen]
        # The steps are at epochs 0 and 2 of the first four, those left fine-tune.
        assert widths[0] == widths[1] and set(widths[2:]) == {whole.after[name]}
        assert abs(widths[0] - width) <= whole.request["multiple_of"] / 2


def test_answers_of_a_network_of_half_precision_are_told_apart(tmp_path):
    paths = {
        StoredAnswers(tmp_path, network(seed=seed).to(dtype), "logits").path
        for seed in (1, 2) for dtype in (torch.bfloat16, torch.float32)
    }  # fmt: skip
    assert len(paths) == 4


def test_the_callback_serves_any_classifier(esc50_tree):
    module = qaudio.Classifier("qcnn6_013", frontend=FRONTEND, lr=0.01)
    fitted(module, data(esc50_tree), epochs=4, callbacks=[StepwisePruning({"ratio": 0.5}, 2)])
    assert module.net.widths == qaudio.plan(network("qcnn6_013"), ratio=0.5).after


def test_moments_and_weights_lose_the_same_filters(known, esc50_tree):
    net = network("qcnn6_013")
    optimizer = torch.optim.Adam([*net.parameters(), extra := torch.nn.Parameter(torch.ones(2))])
    for _ in range(2):
        optimizer.zero_grad()
        (net(torch.randn(4, 4000)).square().sum() + extra.sum()).backward()
        optimizer.step()
    names = {name: optimizer.state[p] for name, p in net.named_parameters()}
    moments = {name: state["exp_avg_sq"].clone() for name, state in names.items()}
    chosen = plan_widths(net, {"conv_block2.conv1": 8, "conv_block4.conv1": 12})
    small = prune(net, chosen)
    follow(optimizer, net, small, chosen)
    expected = slice_tensors(net, chosen, moments)
    fresh = dict(small.named_parameters())
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [
        *map(id, fresh.values()),
        id(extra),
    ]
    for name, parameter in fresh.items():
        state = optimizer.state[parameter]
        assert state["step"] == 2
        assert torch.equal(state["exp_avg_sq"], expected[name])
        assert state["exp_avg"].shape == parameter.shape
    # By hand for a layer that loses outputs: planes r, i, j and k, the same filters of each.
    kept, layer = chosen.kept["conv_block2.conv1"], "conv_block2.conv1.weight"
    by_plane = moments[layer].unflatten(0, (4, -1))[:, kept].flatten(0, 1)
    assert torch.equal(expected[layer], by_plane)
    assert len(optimizer.state) == len(fresh) + 1


class Interrupted(Exception):
    pass


class Interrupt(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == self.epoch:
            raise Interrupted


@pytest.mark.parametrize(("averaging", "interrupted"), [(False, 1), (True, 1), (False, 4)])
def test_a_resumed_run_is_the_run_that_was_not_interrupted(
    known, esc50_tree, tmp_path, averaging, interrupted
):
    source = known(network("qcnn6_013"))

    def started():
        module = stepwise(source, mixup=Mixup(0.3), spec_augment=SpecAugment())
        callbacks = [EMAWeightAveraging(decay=0.9)] if averaging else []
        return module, callbacks

    module, callbacks = started()
    whole = fitted(module, data(esc50_tree), epochs=6, callbacks=callbacks)
    assert whole.optimizers
    first, callbacks = started()
    callbacks += [Interrupt(interrupted), last_checkpoint(tmp_path)]
    with pytest.raises(Interrupted):
        fitted(first, data(esc50_tree), 6, callbacks=callbacks, enable_checkpointing=True)
    torch.rand(7)
    again, callbacks = started()
    fitted(again, data(esc50_tree), 6, callbacks=callbacks, ckpt_path=tmp_path / "last.ckpt")
    assert again.net.widths == module.net.widths
    assert same(again.net, module.net)


def test_averaged_weights_lose_the_same_filters(known, esc50_tree):
    class First(Callback):
        net = None

        def on_train_batch_end(self, trainer, module, *_):
            self.net = self.net or copy.deepcopy(module.net)

    # An average that never moves: the weights after the first batch, and what is cut from them.
    first, module = First(), stepwise(known(network("qcnn6_013")))
    fitted(module, data(esc50_tree), 6, callbacks=[EMAWeightAveraging(decay=1.0), first])
    dense, kept = (
        net.conv_block1.conv1.weight.unflatten(0, (4, -1)).unbind(1)
        for net in (first.net, module.net)
    )
    assert len(kept) < len(dense)
    assert all(any(torch.equal(one, other) for other in dense) for one in kept)


@pytest.mark.parametrize(
    ("steps", "epochs", "message"),
    [(3, 4, "at least 6 epochs are needed"), (5, 0, "at least 10 epochs")],
)
def test_steps_that_do_not_fit_are_refused(known, esc50_tree, steps, epochs, message):
    module = stepwise(known(network()), steps=steps)
    with pytest.raises(ValueError, match=message):
        fitted(module, data(esc50_tree), epochs)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        StepwisePruning(PRUNING, 0)


@pytest.mark.parametrize("steps", [1, 2])
def test_taylor_looks_at_the_folds_training_batches(known, esc50_tree, steps, monkeypatch):
    module = stepwise(known(network("qcnn6_013")), criterion="taylor", steps=steps)
    sounds, heard = data(esc50_tree, seconds=1.0), []
    real = importance.loss_gradients

    def spy(net, waveform, label, names):
        heard.extend(row.numpy().tobytes() for row in waveform)
        return real(net, waveform, label, names)

    monkeypatch.setattr(importance, "loss_gradients", spy)
    fitted(module, sounds, epochs=4)
    assert module.net.widths["conv_block4.conv1"] == 32
    training = {sounds.cache.get(c.path, 8000).tobytes() for c in sounds._select("training")}
    assert set(heard) == training
    assert len(heard) == 24 * (1 if steps == 1 else 3)  # in steps: widths, then filters twice


def test_only_entries_are_pruned():
    with pytest.raises(ValueError, match="only an entry can be pruned"):
        qaudio.PrunedClassifier(arch="qcnn6_006", ratio=0.5)
    with pytest.raises(ValueError, match="only an entry can be pruned"):
        qaudio.DistilledClassifier("teacher", "qcnn6_006", ratio=0.5)


# Distillation.


def student(teacher, **settings):
    arguments = {"arch": "qcnn6_006", "frontend": FRONTEND, "lr": 0.01}
    return qaudio.DistilledClassifier(teacher, **arguments | settings)


@pytest.mark.parametrize("loss", ["kl_logits", "published", "features"])
@pytest.mark.parametrize(
    "teacher",
    [{"arch": "cnn6_013"}, {"arch": "qcnn6_013", "sample_rate": 16000, "n_mels": 40}],
    ids=["real", "other rate"],
)
def test_a_student_learns_from_any_teacher_which_stays_as_it_is(known, esc50_tree, loss, teacher):
    net = network(**teacher)
    module = student(known(net), loss=loss, alpha=1.0, mixup=Mixup(0.3))
    run = fitted(module, data(esc50_tree), epochs=1)
    held = module._held[0]
    assert same(held, net) and not held.training
    assert not any(p.grad is not None or p.requires_grad for p in held.parameters())
    trained = {id(p) for group in run.optimizers[0].param_groups for p in group["params"]}
    assert trained == {id(p) for p in module.parameters()}
    assert not trained & {id(p) for p in held.parameters()}
    assert not [name for name in module.state_dict() if "held" in name or "teacher" in name]
    assert (loss == "features") == any(n.startswith("projection") for n in module.state_dict())


def step_loss(module, sounds, alpha):
    module.alpha = alpha
    batch = next(iter(sounds.train_dataloader()))
    module.net.eval()
    module.log = lambda *_, **__: None
    return module.training_step(batch, 0).item()


def test_the_loss_is_the_weighted_sum_of_labels_and_teacher(known, esc50_tree):
    module, sounds = student(known(network("cnn6_013"))), data(esc50_tree)
    fitted(module, sounds, epochs=1)
    labels, teacher, half = (step_loss(module, sounds, alpha) for alpha in (0.0, 1.0, 0.5))
    assert half == pytest.approx((labels + teacher) / 2)
    plain = qaudio.Classifier("qcnn6_006", frontend=FRONTEND)
    plain.net, plain.log = module.net, lambda *_, **__: None
    assert plain.training_step(next(iter(sounds.train_dataloader())), 0).item() == pytest.approx(
        labels
    )


def test_teacher_and_student_see_the_same_mixture_masked_for_the_student_alone(known, esc50_tree):
    """A student that is its own teacher agrees with it, mixed or not, until it is masked."""
    net = network()
    source = known(net)
    sounds = data(esc50_tree, augment=WaveformAugment(roll=1.0, gain_db=6, speed=0.1, flip=True))
    module = student(source, arch=None, frontend=None, source=source, mixup=Mixup(0.4))
    trainer(1, limit_train_batches=0).fit(module, sounds)
    assert step_loss(module, sounds, 1.0) < 1e-8
    taught = module.taught
    module.taught = lambda waveform, mix: taught(waveform, lambda x: x)
    assert step_loss(module, sounds, 1.0) > 1e-6
    module.taught, module.spec_augment = taught, SpecAugment()
    assert step_loss(module, sounds, 1.0) > 1e-6


def test_a_teachers_classes_may_stand_in_another_order(known, esc50_tree):
    net = network(labels=LABELS[::-1])
    module, sounds = student(known(net)), data(esc50_tree)
    trainer(1, limit_train_batches=0).fit(module, sounds)
    waveform = torch.randn(3, 4000)
    with torch.no_grad():
        assert torch.allclose(module.taught(waveform)[1], net(waveform).flip(1))


def test_a_teacher_hears_the_sounds_at_its_own_rate(known, esc50_tree):
    net = network(sample_rate=16000, n_mels=40)
    module, sounds = student(known(net)), data(esc50_tree)
    trainer(1, limit_train_batches=0).fit(module, sounds)
    waveform = 0.1 * torch.randn(3, 4000)
    with torch.no_grad():
        _, taught = module.taught(waveform)
        assert torch.allclose(taught, net(waveform, module.sample_rate), atol=1e-5)
        assert not torch.allclose(taught, net(waveform), atol=1e-3)


def test_a_teacher_of_other_classes_is_refused_with_what_would_be_allowed(known, esc50_tree):
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
def test_contradictory_arguments_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        student("teacher", **settings)


def test_several_labels_are_distilled_by_bce(known):
    net, teacher = network(), network("cnn6_013")
    module = student("teacher", task="multilabel", loss="bce", alpha=1.0)
    module.net, module._held, module._order = net, (teacher,), [0, 1, 2]
    waveform, targets = torch.randn(4, 4000), torch.randint(2, (4, 3)).float()
    embedding = net.embed(waveform)
    found = module.training_loss(embedding, targets, waveform, lambda x: x)
    p, q = teacher(waveform).sigmoid(), net.classifier(embedding).sigmoid()
    by_hand = -(p * q.log() + (1 - p) * (1 - q).log()).mean()
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("loss", ["kl_logits", "published", "features"])
def test_each_loss_is_the_one_of_its_name_at_its_temperature(loss, task):
    net, teacher = network(), network(seed=2)
    module = student("teacher", task=task, loss=loss, alpha=1.0, temperature=3.5)
    module.net, module._held, module._order = net, (teacher,), [0, 1, 2]
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


@pytest.mark.parametrize("steps", [1, 2])
def test_random_pruning_differs_from_seed_to_seed(known, esc50_tree, steps):
    source = known(network("qcnn6_013"))

    def kept(seed):
        module = stepwise(source, criterion="random", steps=steps, lr=1e-9, head_dropout=0.0)
        fitted(module, data(esc50_tree), epochs=4, seed=seed)
        return module.net.conv_block4.conv1.weight.detach().flatten(1).norm(dim=1)

    first, again, other = kept(0), kept(0), kept(1)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, rtol=1e-3)


def test_embeddings_that_shrink_in_steps_are_not_compared(known, esc50_tree):
    source = known(network("qcnn6_013"))
    start = {"arch": None, "frontend": None, "source": source, "loss": "features"}
    pruning = PRUNING | {"layers": "block2,fc1"}
    module = student(source, **start, **pruning, steps=2)
    with pytest.raises(ValueError, match="size changes with each step that prunes fc1"):
        fitted(module, data(esc50_tree), epochs=4)
    for settings in (pruning | {"steps": 1}, PRUNING | {"steps": 2}):
        fitted(student(source, **start, **settings), data(esc50_tree), epochs=4)


def test_stored_answers_know_the_front_end_and_name_a_broken_file(tmp_path):
    one, other = network(), network(hop_length=100)
    other.load_state_dict(one.state_dict())
    paths = [StoredAnswers(tmp_path, net, "logits").path for net in (one, other)]
    assert paths[0] != paths[1]
    other.architecture = "timm:mobilenetv3_small_100"
    assert ":" not in StoredAnswers(tmp_path, other, "logits").path.name  # which Windows refuses
    paths[0].write_bytes(b"broken")
    with pytest.raises(ValueError, match="delete it"):
        StoredAnswers(tmp_path, one, "logits")


def test_stored_answers_are_computed_once_and_change_nothing(known, esc50_tree, tmp_path):
    source = known(network("cnn6_013"))
    sounds = {"seconds": 1.0}  # as long as the clips: no random crops

    def run(**settings):
        module = student(source, **settings)
        fitted(module, data(esc50_tree, **sounds), epochs=2)
        return module

    plain, first = run(), run(store_teacher=str(tmp_path / "teacher"))
    # A clip's last bits may differ with its place in a batch, so the nets may, by as little.
    torch.testing.assert_close(plain.net.state_dict(), first.net.state_dict(), rtol=0, atol=1e-5)
    assert len(first.answers.rows) == 24
    (file,) = (tmp_path / "teacher").iterdir()
    assert file.name.startswith("cnn6_013-")

    def never(*_):
        raise AssertionError("the teacher was asked again")

    again = student(source, store_teacher=str(tmp_path / "teacher"))
    build = again.build

    def built(*arguments):
        net = build(*arguments)
        again._held[0].embed_features = never
        return net

    again.build = built
    fitted(again, data(esc50_tree, **sounds), epochs=2)
    assert same(again.net, first.net)


def test_a_trial_of_one_step_stores_no_answers(known, esc50_tree, tmp_path):
    module = student(known(network("cnn6_013")), store_teacher=str(tmp_path / "teacher"))
    fitted(module, data(esc50_tree, seconds=1.0), fast_dev_run=True)
    assert not (tmp_path / "teacher").exists()


def test_stored_answers_follow_the_order_of_the_students_classes(tmp_path):
    waveform, teacher = torch.randn(2, 4000), network("cnn6_013").eval()

    def taught(order):
        module = student("teacher")
        module._held, module._order = (teacher,), order
        module.answers = StoredAnswers(tmp_path, teacher, "logits")
        _, found = module.taught(waveform)
        module.answers.save()
        return found

    first = taught([0, 1, 2])
    assert torch.equal(taught([2, 0, 1]), first[:, [2, 0, 1]])


@pytest.mark.parametrize(
    "settings",
    [{"augment": WaveformAugment(flip=True)}, {"seconds": 0.5}, {"seconds": 1.5}],
    ids=str,
)
def test_answers_are_not_stored_where_clips_change(known, esc50_tree, tmp_path, settings):
    module = student(known(network()), store_teacher=str(tmp_path / "teacher"))
    with pytest.raises(ValueError, match="clips that repeat"):
        fitted(module, data(esc50_tree, **{"seconds": 1.0} | settings), epochs=1)


def test_pruning_and_distillation_combine(known, esc50_tree):
    source = known(network("qcnn6_013"))
    for steps in (1, 2):
        module = student(source, arch=None, frontend=None, source=source, steps=steps, **PRUNING)
        fitted(module, data(esc50_tree), epochs=4)
        assert module.net.widths == qaudio.plan(qaudio.load(source), **PRUNING).after
        assert module.parent == ("known.esc10", "pruned and distilled from")
        assert module.sources == [source, source]


def test_the_parent_says_where_a_student_comes_from(known):
    one, two = known(network()), known(network(), "other.esc10")
    start = {"arch": None, "frontend": None}
    for settings, how in (
        ({}, "distilled from"),
        ({"source": two} | start, "fine-tuned from other.esc10, distilled from"),
        ({"source": two, "ratio": 0.5} | start, "pruned from other.esc10, distilled from"),
    ):
        assert student(one, **settings).parent == ("known.esc10", how)
    assert student(one, source=two, **start).sources == [two, one]
