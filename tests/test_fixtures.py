from fixtures.make import make
from scanner_io import recording


def test_the_fixture_is_sound_simulated_and_the_same_each_time(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert recording.check(first) == []
    stored = recording.read(first)
    assert stored.scan.simulated
    assert stored.scan.radiograph.columns > 0
    assert stored.scan.portal is not None
    assert stored.pixels_hash == recording.read(second).pixels_hash
