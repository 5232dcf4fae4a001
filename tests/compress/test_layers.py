import pytest
import torch

import qaudio
from qaudio.compress.layers import analysis, layer_table
from tests.support.networks import EVERY, small_model


@pytest.mark.parametrize("arch", EVERY)
def test_a_second_counter_finds_the_macs_that_cost_counts(arch):
    model = small_model(arch)
    with torch.no_grad():
        assert analysis(model, 2.0).total() == qaudio.cost(model, seconds=2.0).macs


def test_the_table_has_a_row_for_every_layer_and_the_totals():
    model = small_model("cnn6")
    rows = [line.strip("| ").split() for line in layer_table(model, 2.0).splitlines()]
    assert rows[0] == ["module", "|", "#parameters", "|", "#MACs"]
    names = {row[0] for row in rows[2:]}
    assert names == {"whole", *(name for name, layer in model.named_modules() if name in names)}
    assert {"bn0", "conv_block1.conv1", "conv_block4.bn1", "fc1", "classifier"} <= names
