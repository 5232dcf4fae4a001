import numpy as np
import pytest
import torch
from lightning import Callback, Trainer, seed_everything

import qaudio
from qaudio.evaluation.probe import GENTLE, linear_probe
from qaudio.training.finetuning import learning, stages
from qaudio.training.transfer import embed_clips
from tests.support.networks import FRONTEND


class Watch(Callback):
    """The state of every part before training and after each epoch."""

    def __init__(self):
        self.states = []

    def note(self, trainer, module):
        self.states.append([
            torch.cat([value.flatten().double() for value in part.state_dict().values()])
            for part in stages(module.net)
        ])  # fmt: skip

    def on_train_start(self, trainer, module):
        self.note(trainer, module)

    def on_train_epoch_end(self, trainer, module):
        self.note(trainer, module)

    def changed(self):
        """Of each epoch, which parts it changed."""
        return [
            [not torch.equal(*pair) for pair in zip(before, after, strict=True)]
            for before, after in zip(self.states, self.states[1:], strict=False)
        ]


class Made(qaudio.Classifier):
    """With a network that is made here in place of an entry's."""

    sample_rate = FRONTEND["sample_rate"]

    def build(self, labels, split):
        return qaudio.create_model("qcnn6_006", num_classes=3, frontend=FRONTEND).eval()


def fit(esc50_tree, epochs, **settings):
    seed_everything(0, verbose=False)
    module = Made(source="made", lr=0.01, **settings)
    data = qaudio.ESC50(str(esc50_tree), esc10=True, seconds=0.25, batch_size=8)
    watch = Watch()
    Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[watch],
    ).fit(module, data)  # fmt: skip
    return module, watch.changed()


def test_finetuning_frozen_backbone_stays_with_its_statistics(esc50_tree):
    module, changed = fit(esc50_tree, 2, freeze="backbone")
    assert len(changed[0]) == 7  # bn0, four blocks, fc1, classifier
    assert changed == [[False] * 6 + [True]] * 2
    assert all(weight.requires_grad for weight in module.net.parameters())


def test_finetuning_stages_thaw_one_after_the_other(esc50_tree):
    _, changed = fit(esc50_tree, 4, freeze="gradual", thaw_every=2)
    assert changed == [[False] * 6 + [True]] * 2 + [[False] * 5 + [True] * 2] * 2
    assert [learning(4, "gradual", epoch, 2) for epoch in range(9)] == [1, 1, 2, 2, 3, 3, 4, 4, 4]


def test_finetuning_nothing_is_frozen_unless_asked(esc50_tree):
    assert fit(esc50_tree, 1)[1] == [[True] * 7]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arch": "cnn6", "freeze": "backbone"}, "goes with source only"),
        ({"source": "x", "freeze": "gradual", "thaw_every": 0}, "thaw_every must be"),
    ],
)
def test_finetuning_freezing_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        qaudio.Classifier(**settings)


def test_finetuning_probe_first_starts_from_the_classifier_of_a_linear_probe(esc50_tree) -> None:
    seed_everything(0, verbose=False)
    module = Made(source="made", lr=0.0, weight_decay=0.0, probe_first=True, head_dropout=0.0)
    data = qaudio.ESC50(str(esc50_tree), esc10=True, seconds=0.25, batch_size=8)
    Trainer(
        max_steps=0, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    ).fit(module, data)  # fmt: skip
    assert module.net.training
    net = module.net.eval()
    found = embed_clips(net, data)
    train = found.fold != 1
    expected = linear_probe(found.vectors[train], found.label[train], found.vectors, 3, **GENTLE)
    np.testing.assert_allclose(found.logits, expected, atol=1e-3)


@pytest.mark.parametrize("settings", [{"arch": "cnn6"}, {"source": "x", "task": "multilabel"}])
def test_finetuning_probe_first_needs_a_source_and_one_label_a_clip(settings) -> None:
    with pytest.raises(ValueError, match="probe_first goes with a source"):
        qaudio.Classifier(**settings, probe_first=True)


def test_finetuning_frozen_norms_keep_their_statistics_and_learn_their_weights(esc50_tree):
    seed_everything(0, verbose=False)
    module = Made(source="made", lr=0.01, freeze="norms")
    data = qaudio.ESC50(str(esc50_tree), esc10=True, seconds=0.25, batch_size=8)
    before = {k: v.clone() for k, v in module.build(["a", "b", "c"], None).state_dict().items()}
    Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    ).fit(module, data)  # fmt: skip
    after = module.net.state_dict()
    norms = [name for name in after if "running" in name]
    assert norms
    for name in norms:
        expected = torch.zeros(()) if "mean" in name else torch.ones(())
        assert torch.equal(after[name], expected.expand_as(after[name])), name
        weight = name.rpartition(".")[0] + ".weight"
        assert not torch.equal(after[weight], before[weight]), weight
