import pytest
import torch

from qaudio.training.teacher_cache import StoredAnswers
from tests.support.training import network


def test_teacher_cache_answers_of_a_network_of_half_precision_are_told_apart(tmp_path):
    paths = {
        StoredAnswers(tmp_path, network(seed=seed).to(dtype), "logits").path
        for seed in (1, 2) for dtype in (torch.bfloat16, torch.float32)
    }  # fmt: skip
    assert len(paths) == 4


def test_teacher_cache_stored_answers_know_the_front_end_and_name_a_broken_file(tmp_path):
    one, other = network(), network(hop_length=100)
    other.load_state_dict(one.state_dict())
    paths = [StoredAnswers(tmp_path, net, "logits").path for net in (one, other)]
    assert paths[0] != paths[1]
    other.architecture = "timm:mobilenetv3_small_100"
    assert ":" not in StoredAnswers(tmp_path, other, "logits").path.name  # which Windows refuses
    paths[0].write_bytes(b"broken")
    with pytest.raises(ValueError, match="delete it"):
        StoredAnswers(tmp_path, one, "logits")
