import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import qaudio
from qaudio.models.base import check_model, check_weights, evaluating
from tests.support.networks import EVERY, noise, same_state, small_model


@pytest.mark.parametrize("arch", EVERY)
def test_evaluating_answers_as_in_eval_mode_and_leaves_the_model_alone(arch):
    model = small_model(arch)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.5
    with torch.no_grad():
        expected = model.eval()(noise(1, 40_000))
        model.train()
        before = copy.deepcopy(model)
        with evaluating(model) as net:
            assert torch.equal(net(noise(1, 40_000)), expected)
            assert model.training
    assert all(module.training for module in model.modules()) and same_state(model, before)
    theirs = dict(net.named_parameters())
    assert all(theirs[name] is parameter for name, parameter in model.named_parameters())


def test_evaluating_reaches_layers_that_are_held_in_a_list():
    model = small_model("qcnn6_025").train()
    dropout = nn.Dropout(0.5)
    model.head_dropout = dropout
    model.in_a_list = [dropout]
    with evaluating(model) as net:
        assert net.in_a_list[0] is net.head_dropout
        assert not net.in_a_list[0].training and dropout.training


def test_predict_is_right_from_threads_while_the_model_is_in_train_mode(tiny_model):
    model = copy.deepcopy(tiny_model)
    right, wrong = qaudio.predict(model, noise(16_000), top_k=3), []
    model.train()
    before = copy.deepcopy(model)

    def work():
        for _ in range(5):
            found = qaudio.predict(model, noise(16_000), top_k=3)
            wrong.extend([found] if found != right else [])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and model.training and same_state(model, before)


def test_check_model_says_what_of_a_wrapped_model_to_give(tiny_model):
    module = qaudio.Classifier("qcnn6_006")
    module.net = tiny_model
    for wrapped, said in (
        (nn.DataParallel(tiny_model), r"not a DataParallel: give its \.module"),
        (module, r"not a Classifier: give its \.net"),
        (torch.compile(tiny_model), r"not a OptimizedModule: give its \._orig_mod"),
        (nn.Linear(2, 2), "not a Linear$"),
        ("qcnn10", "not a str$"),
    ):
        with pytest.raises(TypeError, match=said):
            check_model(wrapped)


def _masked(model):
    prune.l1_unstructured(model.classifier, "weight", 0.5)


def _parametrised(model):
    parametrizations.weight_norm(model.classifier)


def _compiled(model):
    model.head_dropout = torch.compile(model.head_dropout, backend="eager")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_masked, r"weights of classifier are .*call torch\.nn\.utils\.prune\.remove first"),
        (_parametrised, r"of classifier .*torch\.nn\.utils\.parametrize\.remove_parametr"),
        (_compiled, "head_dropout is compiled: give the model as it was before torch.compile"),
    ],
)
def test_weights_that_are_computed_from_others_are_refused(tiny_model, tmp_path, change, said):
    model = copy.deepcopy(tiny_model)
    change(model)
    assert qaudio.predict(model, noise(16_000), top_k=1)
    for call in (
        lambda: qaudio.save(model, tmp_path / "entry"),
        lambda: qaudio.prune(model, ratio=0.5),
        lambda: qaudio.optimize(model, seconds=0.5, compile=False),
        lambda: qaudio.export_onnx(model, tmp_path / "net.onnx"),
    ):
        with pytest.raises(TypeError, match=said):
            call()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_check_weights_names_the_tensor_that_holds_no_number(tiny_model, value):
    model = copy.deepcopy(tiny_model)
    check_weights(model.state_dict())
    model.classifier.weight.data[1, 2] = value
    with pytest.raises(ValueError, match=r"tensor classifier\.weight holds NaN or infinite"):
        check_weights(model.state_dict())


def test_check_weights_refuses_negative_variances(tiny_model):
    state = copy.deepcopy(tiny_model).state_dict()
    name = next(name for name in state if name.endswith("running_var"))
    state[name][0] = -1.0
    with pytest.raises(ValueError, match=f"tensor {name} holds negative variances"):
        check_weights(state)
