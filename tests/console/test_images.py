"""Tiles: the values that the judgement sees, at every level, whole and in parts."""

import numpy as np
import pytest

from scanner_io.errors import DataError
from tests import samples
from triage.analysis.picture import transmission
from triage.console import images


@pytest.mark.parametrize(
    "changes", [{}, {"first_channel": "top", "air_channels": None}], ids=["as built", "other way up"]
)
def test_values_are_the_transmission_of_the_judgement(changes):
    radiograph = samples.radiograph(columns=90, channels=80, detector=samples.detector(80, **changes))
    for energy in (0, 1):
        pyramid = images.Pyramid(radiograph, energy)
        expected = transmission(radiograph, energy) * images.WHITE
        assert np.abs(pyramid.tile(0, 0, 0).astype(float) - expected).max() <= 1


def test_display_images_keep_their_grey_values():
    radiograph = samples.radiograph(detector=samples.detector(state="display", saturation_value=255))
    assert (images.Pyramid(radiograph, 1).tile(0, 0, 0) == radiograph.upright(1)).all()


def test_tiles_of_every_level_join_to_halves_of_the_level_below(monkeypatch):
    monkeypatch.setattr(images, "TILE", 64)
    monkeypatch.setattr(images, "_TOP_LEVEL_PIXELS", 50)
    monkeypatch.setattr(images, "_STRIP_PIXELS", 16 * 141)
    monkeypatch.setattr(images, "_CACHED_PIXELS", 5 * 141)
    pyramid = images.Pyramid(samples.radiograph(columns=203, channels=141, detector=samples.detector(141)), 1)
    for reduce in ("mean", "min"):
        below = None
        for level in range(pyramid.levels):
            columns, rows = pyramid.size(level)
            whole = np.vstack([
                np.hstack([pyramid.tile(level, x, y, reduce) for x in range(-(-columns // 64))])
                for y in range(-(-rows // 64))
            ])  # fmt: skip
            assert whole.shape == (rows, columns)
            if below is not None:
                assert (whole == images.halved(below, reduce)).all()
            below = whole
    with pytest.raises(DataError, match="no tile 9, 0 of level 0"):
        pyramid.tile(0, 9, 0)


def test_a_wire_of_one_pixel_survives_in_the_smallest_of_every_level():
    image = np.full((64, 64), 60_000, np.uint16)
    image[:, 31] = 5_000
    mean, smallest = image, image
    for _ in range(3):
        mean, smallest = images.halved(mean, "mean"), images.halved(smallest, "min")
    assert smallest.min() == 5_000
    assert mean.min() > 50_000


def test_percentiles_are_of_all_pixels():
    pyramid = images.Pyramid(samples.radiograph(columns=300, channels=100, detector=samples.detector(100)), 1)
    values = pyramid.tile(0, 0, 0)
    told = pyramid.percentiles()
    assert told["50"] == np.percentile(values, 50, method="inverted_cdf")
    assert sum(pyramid.histogram()) == values.size


def test_what_the_server_draws_follows_the_formulae_of_the_page():
    tile = np.array([[0, 16384], [32768, 65535]], np.uint16)
    look = images.Look(low=0, high=65535)
    assert images.rendered(tile, look, 65535).tolist() == [[0, 64], [128, 255]]
    assert images.rendered(tile, images.Look(low=0, high=65535, invert=True), 65535).tolist() == [[255, 191], [127, 0]]
    logarithm = images.rendered(tile, images.Look(low=0, high=65535, log=True), 65535)
    assert logarithm.tolist() == [[0, 223], [239, 255]]
