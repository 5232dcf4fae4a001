import numpy as np
import pytest
import torch
from lightning import Callback, LightningDataModule, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging

import qaudio
from qaudio.data.augment import Mixup, SpecAugment, WaveformAugment
from qaudio.training.checkpoints import WithinEpoch, last_checkpoint
from qaudio.training.optimization import one_cycle_share, warmup_cosine
from tests.support.networks import FRONTEND
from tests.support.training import classifier, data, trainer


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.net.state_dict().values()])


def everything_random():
    """Augmentation, mixup and dropout all on."""
    return (
        classifier(mixup=Mixup(0.3), spec_augment=SpecAugment(), head_dropout=0.5),
        {"augment": WaveformAugment(roll=1.0, gain_db=6, speed=0.1, noise_db=-40, flip=True)},
    )


def test_classifier_learns_to_tell_tones_from_noise(esc50_tree):
    seed_everything(0, verbose=False)
    module, sounds = classifier(head_dropout=0.0, block_dropout=0.0), data(esc50_tree)
    trainer(12).fit(module, sounds)
    trainer(1).test(module, sounds, verbose=False)
    logits = torch.cat([batch["logits"] for batch in module.scored])
    labels = torch.cat([batch["label"] for batch in module.scored])
    assert (logits.argmax(-1) == labels).float().mean() >= 0.8
    assert module.net.labels == ["dog", "rain", "clock_tick"]
    assert module.net.eval_seconds == 0.5


def test_classifier_one_seed_gives_one_run_and_another_seed_another(esc50_tree):
    found = []
    for seed in (0, 0, 1):
        seed_everything(seed, verbose=False)
        module, settings = everything_random()
        trainer(2).fit(module, data(esc50_tree, **settings))
        found.append(weights(module))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_classifier_run_goes_on_in_the_middle_of_an_epoch(esc50_tree, tmp_path):
    """Without dropout, whose draws follow from the epoch's beginning, nothing differs at all."""

    def fresh():
        seed_everything(0, verbose=False)
        return classifier(mixup=Mixup(0.3), head_dropout=0.0, block_dropout=0.0)

    whole = fresh()
    trainer(2).fit(whole, data(esc50_tree))

    class Interrupted(Exception):
        pass

    class Interrupt(qaudio.Classifier):
        def on_train_batch_start(self, batch, index):
            if (self.current_epoch, index) == (1, 2):
                raise Interrupted

    first = fresh()
    first.__class__ = Interrupt
    save = ModelCheckpoint(tmp_path, "part", every_n_train_steps=1)
    with pytest.raises(Interrupted):
        trainer(2, enable_checkpointing=True, callbacks=[save]).fit(first, data(esc50_tree))
    second = fresh()
    trainer(2).fit(second, data(esc50_tree), ckpt_path=save.best_model_path, weights_only=False)
    assert torch.equal(weights(second), weights(whole))


class Kill(Callback):
    """Notes what learns at each batch, and ends a run at one of them."""

    def __init__(self, at=None):
        self.at, self.seen = at, {}

    def on_train_batch_start(self, trainer, module, batch, index):
        if (trainer.current_epoch, index) == self.at:
            raise InterruptedError
        learns = [part.weight.requires_grad for part in module.net.modules() if norm(part)]
        trains = [part.training for part in module.net.modules() if norm(part)]
        self.seen[trainer.current_epoch, index] = learns, trains


def norm(part):
    return isinstance(part, torch.nn.BatchNorm2d)


@pytest.mark.parametrize("kind", ["gradual", "steps"])
def test_classifier_parts_learn_that_would_have_where_a_run_goes_on_within_an_epoch(
    kind, esc50_tree, tiny_entry, tmp_path, monkeypatch
):
    def made():
        if kind == "gradual":
            return qaudio.Classifier(source=str(tiny_entry), freeze="gradual", thaw_every=1)
        return qaudio.PrunedClassifier(
            str(tiny_entry), ratio=0.5, min_channels=4, steps=2, freeze="backbone"
        )

    monkeypatch.setattr(
        "qaudio.training.classifier.load_for_split", lambda source, *_: qaudio.load(source)
    )

    def run(*callbacks, **settings):
        trainer(4, callbacks=list(callbacks)).fit(made(), data(esc50_tree), **settings)

    monkeypatch.setattr("qaudio.training.checkpoints.EVERY", 0.0)
    whole, killed, resumed = Kill(), Kill((2, 2)), Kill()
    run(whole)
    with pytest.raises(InterruptedError):
        run(killed, WithinEpoch(tmp_path))
    run(resumed, ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert min(resumed.seen) == (2, 2)
    assert resumed.seen == {at: whole.seen[at] for at in resumed.seen}
    assert whole.seen[2, 2] != whole.seen[3, 2] or kind == "steps"


def test_classifier_no_checkpoint_within_an_epoch_is_of_its_last_batch(
    esc50_tree, tmp_path, monkeypatch
):
    """A run that went on from there would leave out what comes at the epoch's end."""
    found = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer, module):
            saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
            found.append((saved["global_step"], trainer.global_step))

    monkeypatch.setattr("qaudio.training.checkpoints.EVERY", 0.0)
    trainer(2, callbacks=[WithinEpoch(tmp_path), Look()]).fit(classifier(), data(esc50_tree))
    assert found == [(2, 3), (5, 6)]


def test_classifier_run_that_goes_on_within_an_epoch_saves_no_sooner(
    esc50_tree, tmp_path, monkeypatch
):
    save = ModelCheckpoint(tmp_path, "part", every_n_train_steps=1)
    with pytest.raises(InterruptedError):
        trainer(1, enable_checkpointing=True, callbacks=[save, Kill((0, 1))]).fit(
            classifier(), data(esc50_tree)
        )
    monkeypatch.setattr("qaudio.training.checkpoints.time.monotonic", lambda: 1e6)
    trainer(2, callbacks=[WithinEpoch(tmp_path)]).fit(
        classifier(), data(esc50_tree), ckpt_path=save.best_model_path, weights_only=False
    )
    assert not (tmp_path / "last.ckpt").exists()


def test_classifier_resumed_run_is_the_run_that_was_not_interrupted(esc50_tree, tmp_path):
    seed_everything(0, verbose=False)
    whole, settings = everything_random()
    trainer(3).fit(whole, data(esc50_tree, **settings))

    class Interrupted(Exception):
        pass

    class Interrupt(qaudio.Classifier):
        def on_train_epoch_start(self):
            if self.current_epoch == 2:
                raise Interrupted
            super().on_train_epoch_start()

    seed_everything(0, verbose=False)
    first, _ = everything_random()
    first.__class__ = Interrupt
    save = last_checkpoint(tmp_path)
    with pytest.raises(Interrupted):
        trainer(3, enable_checkpointing=True, callbacks=[save]).fit(
            first, data(esc50_tree, **settings)
        )
    seed_everything(0, verbose=False)
    torch.rand(7)  # a new process has drawn other numbers before
    again, _ = everything_random()
    trainer(3).fit(again, data(esc50_tree, **settings), ckpt_path=tmp_path / "last.ckpt")
    assert torch.equal(weights(whole), weights(again))


def test_classifier_source_entry_is_trained_in_training_mode(esc50_tree, tmp_path):
    seed_everything(0, verbose=False)
    scratch = classifier()
    trainer(1).fit(scratch, data(esc50_tree))
    scratch.net.eval()
    before = scratch.net.bn0.running_mean.clone()
    module = qaudio.Classifier(source=str(qaudio.save(scratch.net, tmp_path / "made")))
    module.build = lambda labels, split: scratch.net  # as load() gives it: in eval mode
    trainer(1).fit(module, data(esc50_tree))
    assert not torch.equal(module.net.bn0.running_mean, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of arch"),
        ({"arch": "cnn6", "source": "x"}, "exactly one of arch"),
        ({"source": "x", "frontend": {}}, "frontend and widths go with arch only"),
        ({"source": "x", "widths": {"fc1": 8}}, "frontend and widths go with arch only"),
    ],
)
def test_classifier_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        qaudio.Classifier(**arguments)


def test_classifier_trains_the_widths_that_it_is_given(esc50_tree):
    widths = {"conv_block1.conv1": 8, "fc1": 16}
    module = qaudio.Classifier("qcnn6_013", frontend=FRONTEND, widths=widths)
    trainer(1).fit(module, data(esc50_tree))
    assert widths.items() <= module.net.widths.items()
    assert module.net.widths["conv_block4.conv1"] == 68


def test_classifier_dropout_rates_reach_the_network(esc50_tree):
    for arch in ("qcnn6_006", "ast_tiny"):
        module = qaudio.Classifier(arch, frontend=FRONTEND, block_dropout=0.1, head_dropout=0.3)
        trainer(0).fit(module, data(esc50_tree))
        assert (module.net.block_dropout.p, module.net.head_dropout.p) == (0.1, 0.3)


def test_classifier_rate_for_a_dropout_that_is_not_there_is_refused(esc50_tree):
    module = qaudio.Classifier("timm:test_convnext", frontend=FRONTEND, block_dropout=0.1)
    with pytest.raises(ValueError, match=r"no block_dropout: leave --model\.block_dropout out"):
        trainer(0).fit(module, data(esc50_tree))


@pytest.mark.parametrize("arguments", [{}, {"ratio": 0.5, "target_macs": 0.5}])
def test_classifier_pruning_takes_exactly_one_target(arguments):
    with pytest.raises(ValueError, match="exactly one of ratio"):
        qaudio.PrunedClassifier("qcnn10_050.esc10", **arguments)


def test_classifier_losses_are_torchs():
    logits, targets = torch.randn(5, 3), torch.eye(3)[[0, 1, 2, 0, 1]]
    plain = classifier().loss(logits, targets)
    smooth = classifier(label_smoothing=0.1).loss(logits, targets)
    multilabel = classifier(task="multilabel").loss(logits, targets)
    log = logits.log_softmax(-1)
    assert torch.allclose(plain, -(targets * log).sum(-1).mean())
    assert torch.allclose(smooth, -((0.9 * targets + 0.1 / 3) * log).sum(-1).mean())
    p = logits.sigmoid()
    by_hand = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    assert torch.allclose(multilabel, by_hand, atol=1e-6)


def test_classifier_weight_decay_spares_biases_and_norms(esc50_tree):
    module = classifier(weight_decay=0.3)
    run = trainer(1, limit_train_batches=1)
    run.fit(module, data(esc50_tree))
    decayed, plain = run.optimizers[0].param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in plain["params"]} == {1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(module.net.parameters()))


@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "constant"])
def test_classifier_every_optimizer_and_schedule_changes_the_weights(
    esc50_tree, optimizer, schedule
):
    seed_everything(0, verbose=False)
    module = classifier(optimizer=optimizer, schedule=schedule)
    torch.manual_seed(0)
    start = module.build(["dog", "rain", "clock_tick"], data(esc50_tree).split)
    torch.manual_seed(0)
    trainer(2).fit(module, data(esc50_tree))
    assert not torch.equal(module.net.classifier.weight, start.classifier.weight)
    assert torch.isfinite(weights(module)).all()


def test_classifier_schedule_of_no_known_length_is_refused(esc50_tree):
    with pytest.raises(ValueError, match="'cosine' ends with the training: give --"):
        trainer(-1, max_time="00:00:01:00").fit(classifier(), data(esc50_tree))


def test_classifier_warmup_cosine_rises_falls_and_ends_at_zero():
    factors = [warmup_cosine(step, 100, 0.1) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1.0
    assert all(np.diff(factors[10:]) <= 0)
    assert factors[100] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"optimizer": "sgd"}, "optimizer must be one of adamw, adam, not 'sgd'"),
        ({"schedule": "step"}, "schedule must be one of cosine, one_cycle, trapezoidal, constant"),
        ({"task": "regression"}, "task must be one of multiclass, multilabel"),
        ({"freeze": "all"}, "freeze must be one of none, norms, backbone, gradual"),
        ({"warmup": 5}, "warmup is a share, 0 to 1, not 5"),
        ({"label_smoothing": 2.0}, "label_smoothing is a share"),
        ({"label_smoothing": 0.1, "task": "multilabel"}, "label_smoothing is for one label"),
        ({"head_dropout": -0.1}, "head_dropout is a share"),
        ({"block_dropout": 20}, "block_dropout is a share"),
        ({"lr": -1.0}, "lr must be at least 0"),
        ({"weight_decay": float("nan")}, "weight_decay must be at least 0"),
    ],
)
def test_classifier_settings_out_of_range_are_refused(setting, said):
    with pytest.raises(ValueError, match=said):
        classifier(**setting)


def test_classifier_module_is_not_trained_on_two_splits(esc50_tree):
    module = classifier()
    trainer(1).fit(module, data(esc50_tree, fold=1))
    trainer(1).fit(module, data(esc50_tree, fold=1))  # on it goes
    for other in ({"fold": 2}, {"fold": 1, "holdout": "validation"}):
        with pytest.raises(ValueError, match="network was trained on another split"):
            trainer(1).fit(module, data(esc50_tree, **other))
        trainer(1).validate(module, data(esc50_tree, **other), verbose=False)
    loader = data(esc50_tree, fold=1)
    loader.trainer = trainer(1)
    loader.sample_rate = 4000
    loader.setup()
    trainer(1).fit(module, train_dataloaders=loader.train_dataloader())  # what it holds, you know


def test_classifier_network_that_was_only_scored_is_made_anew_for_another_split(esc50_tree):
    for fold, kept in ((1, True), (2, False)):
        module = classifier()
        trainer(1).test(module, data(esc50_tree, fold=1), verbose=False)
        scored = module.net
        trainer(1).fit(module, data(esc50_tree, fold=fold))
        assert (module.net is scored) == kept


def test_classifier_network_that_somebody_gave_is_trained_on_any_split(esc50_tree):
    module = classifier()
    net = qaudio.create_model("qcnn6_006", num_classes=3, frontend=FRONTEND)
    module.adopt(net)
    trainer(1).fit(module, data(esc50_tree))
    assert module.net is net


def test_classifier_datamodule_of_ones_own_is_one_that_tells_of_its_split(esc50_tree):
    class Own(LightningDataModule):
        """Has all of a benchmark's attributes, and is none."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def setup(self, stage):
            self.inner.trainer = self.trainer
            self.inner.setup(stage)

        def train_dataloader(self):
            return self.inner.train_dataloader()

        def __getattr__(self, name):
            return getattr(self.__dict__["inner"], name)

    module = classifier()
    trainer(1).fit(module, Own(data(esc50_tree)))
    assert module.net.labels == ["dog", "rain", "clock_tick"]


def test_classifier_loaders_without_a_datamodule_are_refused(esc50_tree):
    loader = [{"waveform": torch.zeros(2, 4000), "label": torch.zeros(2)}]
    with pytest.raises(TypeError, match="takes classes and rate from a DataModule"):
        trainer(1).fit(classifier(), train_dataloaders=loader)


def test_classifier_checkpoint_read_without_a_trainer_names_the_way_to_its_network(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "widths": {}, "pytorch-lightning_version": "2.6.0"}, path)
    with pytest.raises(TypeError, match=r"a Trainer reads its checkpoints: .*module\.net"):
        qaudio.Classifier.load_from_checkpoint(path, arch="qcnn6_006")


def test_classifier_averaging_that_would_average_nothing_is_refused(esc50_tree):
    averaging = StochasticWeightAveraging(swa_lrs=0.01)
    with pytest.raises(ValueError, match="take Lightning's WeightAveraging or EMAWeightAveraging"):
        trainer(2, callbacks=[averaging]).fit(classifier(), data(esc50_tree))


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 100])
def test_classifier_one_cycle_runs_whatever_its_few_steps(warmup, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    share = one_cycle_share(warmup, steps)
    assert abs(share - warmup) <= 1 / steps + 1e-9
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=steps, pct_start=share
    )
    for _ in range(steps - 1):
        optimizer.step()
        schedule.step()
        assert 0 <= schedule.get_last_lr()[0] <= 0.1 + 1e-9
