from types import SimpleNamespace

import pytest

from qaudio.data.audio import AudioCache
from qaudio.data.clip import Clip
from qaudio.data.usable import decoded
from qaudio.errors import DataError

RATE = 8000


@pytest.mark.parametrize("bits", [16, 32])
def test_decoded_asks_for_the_room_that_cached_samples_take(
    write_sound, tmp_path, monkeypatch, bits
):
    """A third of twelve clips of half a second is decoded when the room is looked at."""
    clips = [Clip(write_sound(f"{n}.wav", seconds=0.5, seed=n), 0, str(n), 1) for n in range(12)]
    cache, rooms = AudioCache(tmp_path / "cache", bits=bits), []
    monkeypatch.setattr("qaudio.data.usable.ROOM_AFTER", 4)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=rooms[-1]))
    each = bits // 8 * RATE // 2
    rooms.append(4 * each)
    with pytest.raises(DataError, match="12 clips need about"):
        decoded("made", clips, cache, RATE)
    rooms.append(8 * each)
    assert len(decoded("made", clips, cache, RATE).clips) == 12
