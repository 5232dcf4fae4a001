import copy
import dataclasses
import json
import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qaudio.compress.cost import cost
from qaudio.compress.importance import CRITERIA
from qaudio.compress.prune import Plan, plan, prune
from qaudio.models.registry import create_model, from_config
from tests.support.networks import same_state, small_model, sounds

ARCHS = ("cnn10_025", "qcnn10_025", "cnn6_025", "qcnn6_025")
RESNETS = ("resnet38_013", "qresnet38_013")
CONVS = [f"conv_block{b}.conv{c}" for b in (1, 2, 3, 4) for c in (1, 2)]  # of CNN10


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return sounds(3, 16000)


@torch.no_grad()
def logits_masked(model, kept: dict[str, list[int]], clips: torch.Tensor) -> torch.Tensor:
    """Logits of the dense network with the channels that are not kept set to zero after ReLU."""
    masked = copy.deepcopy(model)
    planes = 4 if model.quaternion else 1
    for layer, indices in kept.items():
        mask = torch.zeros(planes, model.widths[layer] // planes)
        mask[:, indices] = 1
        mask = mask.flatten() if layer.endswith("fc1") else mask.flatten()[:, None, None]
        group = next(group for group in model.channel_groups() if group.name == layer)
        for before_relu in group.norms or group.producers:
            masked.get_submodule(before_relu).register_forward_hook(
                lambda _module, _inputs, output, mask=mask: output * mask
            )
    return masked(clips)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest logit: the sums run in another order."""
    scale = expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(
    "request_",
    [
        {"ratio": 0.5},
        {"ratio": 0.25, "multiple_of": 8},
        {"ratio": 0.75, "layers": "published", "min_channels": 4},
        {"ratio": 0.5, "layers": "blocks2-3"},
        {"ratio": 0.5, "layers": "conv_block2.conv1, fc1"},
        {"ratio": 0.5, "layers": ["fc1"]},
        {"ratio": 0.4, "layers": ["block1", "conv_block4.conv1", "fc1"]},
        {"target_macs": 0.3},
    ],
    ids=str,
)
def test_logits_are_those_of_the_dense_net_with_the_dropped_channels_masked(
    arch, request_, clips
) -> None:
    model = small_model(arch)
    chosen = plan(model, **request_)
    pruned = prune(model, chosen)
    assert pruned.widths == chosen.after != model.widths
    with torch.no_grad():
        dense = model(clips)
        expected = logits_masked(model, chosen.kept, clips)
        assert (expected - dense).abs().max() > 1e-2 * dense.abs().max()
        assert_close(pruned(clips), expected)


@pytest.mark.parametrize("arch", RESNETS)
@pytest.mark.parametrize(
    "request_",
    [
        {"ratio": 0.5, "min_channels": 4},
        {"ratio": 0.5, "layers": "published"},
        {"ratio": 0.5, "layers": "resnet.layer1,resnet.layer3", "min_channels": 4},
        {"ratio": 0.5, "layers": "block3", "min_channels": 4},
    ],
    ids=str,
)
def test_residual_channels_are_masked_together(arch, request_, clips) -> None:
    model = small_model(arch)
    chosen = plan(model, **request_)
    pruned = prune(model, chosen)
    with torch.no_grad():
        dense = model(clips)
        expected = logits_masked(model, chosen.kept, clips)
        assert (expected - dense).abs().max() > 1e-3 * dense.abs().max()
        assert_close(pruned(clips), expected)
    assert cost(pruned).macs == chosen.macs_after


@pytest.mark.parametrize(
    "request_",
    [{"ratio": 0.5}, {"ratio": 0.9, "layers": "blocks2-3"}, {"target_macs": 0.8},
     {"target_params": 0.7, "allocation": "global"}],
    ids=str,
)  # fmt: skip
def test_a_transformer_loses_hidden_units_of_its_mlps(request_, clips) -> None:
    model = small_model("ast_tiny", widths={f"blocks.{n}.mlp.fc1": 256 for n in range(12)})
    for block in model.blocks:
        torch.nn.init.normal_(block.mlp.fc1.bias, std=0.5)
        torch.nn.init.normal_(block.mlp.fc1.weight, std=0.2)
    chosen = plan(model, **request_)
    pruned = prune(model, chosen)
    with torch.no_grad():
        dense = model(clips)
        expected = logits_masked(model, chosen.kept, clips)
        assert (expected - dense).abs().max() > 1e-2 * dense.abs().max()
        assert_close(pruned(clips), expected)
    for n, block in enumerate(pruned.blocks):
        assert block.mlp.fc1.out_features == chosen.after[f"blocks.{n}.mlp.fc1"]
    assert cost(pruned).macs == chosen.macs_after < chosen.macs_before
    if share := request_.get("target_params"):
        assert cost(pruned).params == pytest.approx(share * cost(model).params, rel=0.01)
    assert same_state(prune(pruned, ratio=0), pruned)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"layers": "published"}, "no paper prunes ast_tiny: say 'all' or name layers"),
        ({"criterion": "bn_scale"}, "blocks.0.mlp.fc1 has no BatchNorm"),
        ({"layers": "block13"}, "ast_tiny has no layers 'block13'"),
    ],
    ids=str,
)
def test_what_a_transformer_lacks_is_refused(request_, message) -> None:
    with pytest.raises(ValueError, match=message):
        plan(small_model("ast_tiny"), ratio=0.5, **request_)


@pytest.mark.parametrize("arch", ARCHS)
def test_ratio_zero_is_the_identity(arch, clips) -> None:
    model = small_model(arch)
    chosen = plan(model, ratio=0)
    assert chosen.before == chosen.after == model.widths
    assert chosen.macs_before == chosen.macs_after
    pruned = prune(model, chosen)
    assert pruned is not model and same_state(pruned, model)
    with torch.no_grad():
        assert torch.equal(pruned(clips), model(clips))


@pytest.mark.parametrize("arch", ["cnn10_025", "qcnn10_025"])
def test_model_is_left_as_it_is_and_nothing_is_shared(arch) -> None:
    model, twin = small_model(arch), small_model(arch)
    pruned = prune(model, ratio=0.5)
    assert same_state(model, twin) and model.config == twin.config
    with torch.no_grad():
        for tensor in pruned.state_dict().values():
            tensor.zero_()
    assert same_state(model, twin)


def test_what_is_not_pruned_is_carried_over() -> None:
    model = small_model("qcnn6_025", frontend={"n_fft": 512}).double().train()
    model.labels, model.task, model.eval_seconds = list("abcdefg"), "multilabel", 5.0
    pruned = prune(model, ratio=0.5)
    assert type(pruned) is type(model) and pruned.training
    assert pruned.config == dataclasses.replace(model.config, widths=pruned.widths)
    assert pruned.classifier.weight.dtype == torch.float64
    assert pruned.widths["fc1"] == model.widths["fc1"]  # the embedding stays unless named
    assert not prune(model.eval(), ratio=0.5).training
    # Gradients reach the smaller network.
    pruned(sounds(2, 16000)).square().sum().backward()
    assert all(p.grad.any() for p in pruned.parameters())


def test_components_of_a_quaternion_are_kept_together() -> None:
    model = small_model("qcnn10_025")
    chosen = plan(model, ratio=0.5)
    pruned = prune(model, chosen)
    for before, layer, after in zip(CONVS[:-1], CONVS[1:], [*CONVS[2:], "fc1"], strict=True):
        inputs, kept = chosen.kept[before], chosen.kept[layer]
        assert 0 < len(kept) < model.widths[layer] // 4 and kept == sorted(set(kept))
        for r_i_j_k in range(4):
            dense, small = (
                net.get_submodule(layer).weight.chunk(4)[r_i_j_k] for net in (model, pruned)
            )
            assert torch.equal(small, dense[kept][:, inputs])
            norm = layer.replace(".conv", ".bn")
            for name in ("weight", "bias", "running_mean", "running_var"):
                dense, small = (
                    getattr(net.get_submodule(norm), name).chunk(4)[r_i_j_k]
                    for net in (model, pruned)
                )
                assert torch.equal(small, dense[kept])
        consumer = pruned.get_submodule(after)
        assert consumer.weight.shape[1] == len(kept)


def test_the_highest_scores_stay() -> None:
    model = small_model("qcnn10_025")
    weight = model.conv_block3.conv1.weight.detach().view(4, 16, -1)
    weight *= torch.arange(1, 17).roll(5)[:, None] / weight.abs().sum(dim=(0, 2))[:, None]
    kept = plan(model, ratio=0.5, layers="conv_block3.conv1").kept
    assert kept == {"conv_block3.conv1": [0, 1, 2, 3, 4, 13, 14, 15]}


def test_plan_goes_through_json_and_back(clips) -> None:
    model = small_model("qcnn6_025")
    for layers in ("all", ["fc1", "block2"]):
        chosen = plan(model, ratio=0.3, layers=layers)
        text = chosen.to_json()
        assert Plan.from_json(text) == chosen
        assert json.loads(text)["kept"] == chosen.kept
        assert same_state(prune(model, Plan.from_json(text)), prune(model, chosen))


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["cnn6_025", "qcnn6_025"]),
    st.one_of(
        st.fixed_dictionaries({"ratio": st.floats(0, 0.99)}),
        st.fixed_dictionaries({"target_macs": st.floats(0.8, 1)}),
        st.fixed_dictionaries({"target_params": st.floats(0.8, 1)}),
    ),
    st.sampled_from([c for c in CRITERIA if c not in ("taylor", "operator_norm")]),
    st.sampled_from(["uniform", "global"]),
    st.integers(0, 2**31),
)
def test_any_plan_goes_through_json_and_back(arch, target, criterion, allocation, seed) -> None:
    chosen = plan(
        small_model(arch), **target, criterion=criterion, allocation=allocation, seed=seed,
        min_channels=4,
    )  # fmt: skip
    assert Plan.from_json(chosen.to_json()) == chosen
    assert Plan.from_json(chosen.to_json()).to_json() == chosen.to_json()


@pytest.mark.parametrize("text", ["{}", "[]", '{"kept": {}}', "not json", "[" * 100_000])
def test_other_documents_are_no_plans(text) -> None:
    with pytest.raises(ValueError):
        Plan.from_json(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [("kept", None), ("kept", [1]), ("kept", {"fc1": 3}), ("kept", {"fc1": ["a"]}),
     ("kept", {"fc1": [True]}), ("before", 4), ("after", {"fc1": "8"}), ("request", [1]),
     ("criterion", "\x1b[31m"), ("macs_after", 10**30)],
    ids=str,
)  # fmt: skip
def test_a_plan_of_another_form_is_refused(key, value) -> None:
    document = json.loads(plan(small_model("qcnn6_025"), ratio=0.5).to_json())
    with pytest.raises(ValueError, match=f"not a pruning plan: {key}.*expected"):
        Plan.from_json(json.dumps(document | {key: value}))


def test_something_else_than_a_plan_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a model, as qaudio\.load\('ENTRY'\) gives, not a str"):
        prune("qcnn10_050.esc10", ratio=0.5)
    with pytest.raises(TypeError, match=r"such as ratio=0\.5, not 0\.5"):
        prune(small_model("qcnn6_025"), 0.5)


@pytest.mark.parametrize("arch", [*ARCHS, *RESNETS])
def test_a_pruned_network_is_rebuilt_from_its_config(arch, clips) -> None:
    pruned = prune(small_model(arch), ratio=0.5)
    config = json.loads(json.dumps(pruned.config.to_dict()))
    rebuilt = from_config(config).eval()
    rebuilt.load_state_dict(pruned.state_dict())
    assert rebuilt.config == pruned.config
    with torch.no_grad():
        assert torch.equal(rebuilt(clips), pruned(clips))


@pytest.mark.parametrize("arch", ARCHS)
def test_a_pruned_network_is_pruned_again(arch, clips) -> None:
    model = small_model(arch)
    first = plan(model, ratio=0.25, min_channels=4)
    once = prune(model, first)
    second = plan(once, ratio=0.5, layers="published", min_channels=4)
    twice = prune(once, second)
    assert second.before == first.after and twice.widths == second.after
    kept = {
        layer: [indices[n] for n in second.kept.get(layer, range(len(indices)))]
        for layer, indices in first.kept.items()
    }
    with torch.no_grad():
        assert_close(twice(clips), logits_masked(model, kept, clips))
    # and is, bit for bit, the network pruned once to the filters that both plans keep.
    both = dataclasses.replace(first, kept=kept, after=second.after)
    once_to_the_same = prune(model, both)
    assert same_state(twice, once_to_the_same) and twice.config == once_to_the_same.config


@pytest.mark.parametrize("arch", [*ARCHS, "qcnn14_013", "cnn14_013"])
@pytest.mark.parametrize(
    "request_",
    [{"ratio": 0.37}, {"ratio": 0.6, "layers": "published"}, {"target_macs": 0.4}, {"ratio": 0}],
    ids=str,
)
def test_macs_fall_by_the_predicted_amount(arch, request_) -> None:
    model = small_model(arch)
    chosen = plan(model, **request_)
    assert chosen.macs_before == cost(model).macs
    assert chosen.macs_after == cost(prune(model, chosen)).macs
    layers = [*chosen.kept, "fc1"]
    with_fc1 = plan(model, **(request_ | {"layers": layers}))
    assert with_fc1.macs_after == cost(prune(model, with_fc1)).macs


@pytest.fixture(scope="module")
def qcnn14():
    return create_model("qcnn14", num_classes=50)


@pytest.mark.parametrize("share", [0.5, 0.25, 0.1])
def test_qcnn14_meets_a_target_of_macs(qcnn14, share) -> None:
    start = time.process_time()  # of all threads: at least what a clock shows on an idle machine
    chosen = plan(qcnn14, target_macs=share)
    assert time.process_time() - start < 30
    assert chosen.macs_after == pytest.approx(share * chosen.macs_before, rel=0.02)
    assert chosen.after["fc1"] == chosen.before["fc1"]


@pytest.mark.slow
def test_predicted_macs_of_qcnn14_are_exact(qcnn14) -> None:
    for share in (0.5, 0.25, 0.1):
        chosen = plan(qcnn14, target_macs=share)
        assert cost(prune(qcnn14, chosen)).macs == chosen.macs_after


def test_target_may_be_a_number_of_macs() -> None:
    model = small_model("qcnn10_050")
    whole = cost(model).macs
    by_number, by_share = plan(model, target_macs=0.3 * whole), plan(model, target_macs=0.3)
    assert by_number.after == by_share.after
    assert by_number.macs_after == pytest.approx(0.3 * whole, rel=0.02)
    assert plan(model, target_macs=1).after == model.widths
    assert plan(model, target_macs=whole).after == model.widths


@pytest.mark.parametrize("arch", ["qcnn10_025", "cnn10_025"])
@pytest.mark.parametrize("multiple_of", [4, 8, 16])
@pytest.mark.parametrize("min_channels", [1, 8, 20])
def test_widths_are_multiples_and_not_below_the_least(arch, multiple_of, min_channels) -> None:
    model = small_model(arch)
    bounds = {"multiple_of": multiple_of, "min_channels": min_channels}
    for request_ in ({"ratio": 0.99}, {"ratio": 0.6}, {"target_macs": 0.75}):
        chosen = plan(model, **request_, **bounds)
        for layer in chosen.kept:
            before, after = chosen.before[layer], chosen.after[layer]
            assert after == before or after % multiple_of == 0
            assert min(before, min_channels) <= after <= before
            planes = 4 if model.quaternion else 1
            assert len(chosen.kept[layer]) == after // planes
    least = plan(model, ratio=0.99, **bounds)
    smallest = -(-min_channels // multiple_of) * multiple_of
    assert all(least.after[layer] == min(smallest, least.before[layer]) for layer in least.kept)


def test_real_nets_may_lose_single_channels() -> None:
    model = small_model("cnn10_025")
    chosen = plan(model, ratio=0.1, multiple_of=1, min_channels=1)
    assert list(chosen.after.values()) == [14, 14, 29, 29, 58, 58, 115, 115, 128]


@pytest.mark.parametrize(
    ("ratio", "widths"),
    [  # of 16, 32, 64, 128 channels, two layers each
        (0.25, (12, 24, 48, 96)),
        (0.5, (8, 16, 32, 64)),
        (0.75, (8, 8, 16, 32)),  # not below min_channels
        (0.3, (12, 24, 44, 88)),  # 11.2, 22.4, 44.8, 89.6; the nearest multiple of 4
        (0.375, (8, 20, 40, 80)),  # 10 lies between two: the smaller
    ],
)
def test_widths_are_the_ratios_rounding(ratio, widths) -> None:
    model = small_model("qcnn10_025")
    after = plan(model, ratio=ratio).after
    assert tuple(after[name] for name in CONVS[::2]) == widths
    assert tuple(after[name] for name in CONVS[1::2]) == widths
    assert after["fc1"] == model.widths["fc1"]


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_a_ratio_that_floors_keep_from_being_met_is_said(allocation) -> None:
    model = small_model("qcnn10_025")
    with pytest.warns(UserWarning, match="ratio 0.5 is missed, 0.00 of the channels go") as said:
        plan(model, ratio=0.5, min_channels=128, allocation=allocation)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan(model, ratio=0.75, allocation=allocation)


@pytest.mark.parametrize("number", [np.float32(0.5), torch.tensor(0.5), np.float64(0.5)])
def test_numbers_of_other_libraries_are_numbers(number) -> None:
    model = small_model("qcnn10_025")
    chosen = plan(model, ratio=number)
    assert chosen == plan(model, ratio=0.5) == Plan.from_json(chosen.to_json())


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("all", CONVS),
        ("published", CONVS[4:]),
        ("blocks2-3", CONVS[2:6]),
        ("block4", CONVS[6:]),
        ("blocks2-3,conv_block2.conv1", CONVS[2:6]),
        (["fc1"], ["fc1"]),
        (("block1", "fc1"), [*CONVS[:2], "fc1"]),
    ],
)
def test_layers_are_named_in_several_ways(layers, names) -> None:
    for arch in ("cnn10_025", "qcnn10_025"):
        assert list(plan(small_model(arch), ratio=0.5, layers=layers).kept) == names


def test_the_papers_prune_blocks_four_to_six_of_qcnn14() -> None:
    kept = plan(small_model("qcnn14_013"), ratio=0.5, layers="published").kept
    assert list(kept) == [f"conv_block{b}.conv{c}" for b in (4, 5, 6) for c in (1, 2)]


NAN = float("nan")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "exactly one of ratio, target_macs"),
        ({"ratio": 0.5, "target_macs": 0.5}, "exactly one of ratio, target_macs"),
        ({"ratio": 1.2}, r"0 <= ratio < 1, not 1\.2"),
        ({"ratio": 1}, "0 <= ratio < 1, not 1"),
        ({"ratio": -0.1}, r"0 <= ratio < 1, not -0\.1"),
        ({"ratio": NAN}, "0 <= ratio < 1, not nan"),
        ({"target_macs": NAN}, r"nan cannot be met.*are possible"),
        ({"target_macs": -0.1}, r"cannot be met.*%\) to .* are possible"),
        ({"target_macs": 0.001}, r"cannot be met.*%\) to .* are possible"),
        ({"target_macs": 0.1, "layers": "block4"}, r"cannot be met.*are possible"),
        ({"target_macs": 1e15}, r"cannot be met.*are possible"),
        ({"ratio": 0.5, "layers": "conv_block9.conv1"}, r"'conv_block9\.conv1'; there are"),
        ({"ratio": 0.5, "layers": ["fc1", "head"]}, r"'head'; .*conv_block1\.conv1.*fc1"),
        ({"ratio": 0.5, "layers": "blocks7-9"}, "'blocks7-9'; there are all, published, blocksA-B"),
        ({"ratio": 0.5, "layers": ""}, "has no layers ''"),
        ({"ratio": 0.5, "layers": "all,fc1"}, "layers 'all' stands alone, not in 'all, fc1'"),
        ({"ratio": 0.5, "criterion": "l3"}, r"criterion must be one of .*l1.*, not 'l3'"),
        ({"ratio": 0.5, "multiple_of": 3}, "multiple of 4 for a quaternion net: 3"),
        ({"ratio": 0.5, "multiple_of": 0}, "must be a positive whole number"),
        ({"ratio": 0.5, "min_channels": 0}, "must be a positive whole number"),
    ],
    ids=str,
)
def test_bad_requests_are_refused_with_what_is_allowed(request_, message) -> None:
    model = small_model("qcnn6_025")
    for call in (plan, prune):
        if call is prune and not request_:
            message = "give either a plan or the arguments"
        with pytest.raises(ValueError, match=message):
            call(model, **request_)


def test_real_nets_take_any_multiple() -> None:
    after = plan(small_model("cnn6_025"), ratio=0.5, multiple_of=3).after
    assert list(after.values()) == [9, 15, 33, 63, 128]


def test_a_plan_fits_the_network_that_it_was_made_for_only() -> None:
    model = small_model("qcnn10_025")
    chosen = plan(model, ratio=0.5)
    for other in (small_model("qcnn10_050"), small_model("cnn10_025"), prune(model, chosen)):
        with pytest.raises(ValueError, match="the plan was made for qcnn10_025"):
            prune(other, chosen)
    with pytest.raises(ValueError, match="give either a plan or the arguments"):
        prune(model, chosen, ratio=0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kept": {"conv_block9.conv1": [0]}}, "unknown layers: conv_block9.conv1"),
        ({"kept": {"conv_block1.conv1": [1, 0]}}, "ascending indices from 0 to 3"),
        ({"kept": {"conv_block1.conv1": [0, 0]}}, "ascending indices"),
        ({"kept": {"conv_block1.conv1": [-1, 2]}}, "ascending indices"),
        ({"kept": {"conv_block1.conv1": [0, 4]}}, "ascending indices"),
        ({"kept": {"conv_block1.conv1": []}}, "ascending indices"),
        ({"kept": {"conv_block1.conv1": [0]}}, "keeps 4 channels of conv_block1.conv1, but says"),
    ],
)
def test_an_edited_plan_that_cannot_be_carried_out_is_refused(change, message) -> None:
    model = small_model("qcnn10_025")
    chosen = dataclasses.replace(plan(model, ratio=0.5), **change)
    with pytest.raises(ValueError, match=message):
        prune(model, chosen)
