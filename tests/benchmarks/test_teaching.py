import torch

from qaudio.cards.tables import with_generated
from tests.benchmarks.teaching import README, measure, shown


def test_measure_times_every_part_and_the_step() -> None:
    torch.manual_seed(0)
    found = measure("qcnn6_006", "mn01", batch=2, seconds=1.0, precision="fp32", repeats=1)
    parts = dict(found["parts"])
    step = parts.pop("step")
    assert len(parts) == 5 and all(value > 0 for value in parts.values())
    assert found["clips_a_second"] == 2 / step
    assert shown(found) in with_generated(
        README.read_text("utf-8"), "speed of teaching", shown(found)
    )
    assert "| step |" in shown(found) and "| 100% |" in shown(found)
