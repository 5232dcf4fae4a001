import copy
from itertools import pairwise

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

import qaudio
from qaudio.compress import importance
from qaudio.compress.prune import plan_widths, prune, slice_tensors
from qaudio.data.augment import Mixup, SpecAugment
from qaudio.training.checkpoints import last_checkpoint
from qaudio.training.pruning import StepwisePruning, follow
from tests.support.networks import FRONTEND, same_state
from tests.support.training import PRUNING, data, fitted, network


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
def test_pruning_steps_end_at_the_widths_of_the_plan_in_one(known, esc50_tree, target, optimizer):
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


def test_pruning_steps_are_equal_parts_at_equal_distances(known, esc50_tree):
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


def test_pruning_callback_serves_any_classifier(esc50_tree):
    module = qaudio.Classifier("qcnn6_013", frontend=FRONTEND, lr=0.01)
    fitted(module, data(esc50_tree), epochs=4, callbacks=[StepwisePruning({"ratio": 0.5}, 2)])
    assert module.net.widths == qaudio.plan(network("qcnn6_013"), ratio=0.5).after


def test_pruning_moments_and_weights_lose_the_same_filters(known, esc50_tree):
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
def test_pruning_resumed_run_is_the_run_that_was_not_interrupted(
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
    assert same_state(again.net, module.net)


def test_pruning_averaged_weights_lose_the_same_filters(known, esc50_tree):
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
def test_pruning_steps_that_do_not_fit_are_refused(known, esc50_tree, steps, epochs, message):
    module = stepwise(known(network()), steps=steps)
    with pytest.raises(ValueError, match=message):
        fitted(module, data(esc50_tree), epochs)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        StepwisePruning(PRUNING, 0)


@pytest.mark.parametrize("steps", [1, 2])
def test_pruning_taylor_looks_at_the_folds_training_batches(known, esc50_tree, steps, monkeypatch):
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


def test_pruning_only_entries_are_pruned():
    with pytest.raises(ValueError, match="only an entry can be pruned"):
        qaudio.PrunedClassifier(arch="qcnn6_006", ratio=0.5)
    with pytest.raises(ValueError, match="only an entry can be pruned"):
        qaudio.DistilledClassifier("teacher", "qcnn6_006", ratio=0.5)


@pytest.mark.parametrize("steps", [1, 2])
def test_pruning_random_pruning_differs_from_seed_to_seed(known, esc50_tree, steps):
    source = known(network("qcnn6_013"))

    def kept(seed):
        module = stepwise(source, criterion="random", steps=steps, lr=1e-9, head_dropout=0.0)
        fitted(module, data(esc50_tree), epochs=4, seed=seed)
        return module.net.conv_block4.conv1.weight.detach().flatten(1).norm(dim=1)

    first, again, other = kept(0), kept(0), kept(1)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, rtol=1e-3)
