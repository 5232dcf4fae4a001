"""Lightning's loggers, set in a recipe or on the command line."""

import math

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qaudio.cli import main


def test_a_run_is_logged_to_tensorboard(recipe, tmp_path):
    folder = tmp_path / "board"
    arguments = [
        "--trainer.logger=TensorBoardLogger", f"--trainer.logger.save_dir={folder}",
        "--trainer.logger.name=qcnn6_006", "--trainer.logger.version=1",
    ]  # fmt: skip
    assert main(["fit", *recipe(), *arguments, "--data.holdout=validation"]) == 0
    events = EventAccumulator(str(folder / "qcnn6_006" / "version_1"))
    events.Reload()
    for name in ("train_loss", "val_loss"):
        values = [event.value for event in events.Scalars(name)]
        assert len(values) == 2  # epochs
        assert all(math.isfinite(value) and value > 0 for value in values)
    assert not list((tmp_path / "runs").rglob("metrics.csv"))  # in place of the usual table
