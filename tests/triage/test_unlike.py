"""Places unlike their surroundings: as regions of an image, as candidates, and in the judgement of a scan."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest

from scanner_io.errors import DataError
from tests.triage.test_container import overlap, radiograph, scene
from triage.analysis import fuser as fusers
from triage.analysis import normal
from triage.analysis.cargo_grid import straightened
from triage.analysis.container import find_container
from triage.analysis.fuser import About, Fuser
from triage.analysis.image import ImageProfile, judge_image
from triage.analysis.maps import maps_of
from triage.analysis.normal import learn_normal
from triage.analysis.places import Place
from triage.analysis.unlike import (
    GRID,
    Seen,
    look,
    rarity,
    suspicious_regions,
    texture_of,
    texture_unknown,
    unlike_all_that_was_learnt,
)

OPAQUE = 0.03


def noisy(seed, load="stacks"):
    noise = np.random.default_rng(seed).normal(0, 0.005, (600, 1500)).astype(np.float32)
    return np.clip(scene(load=load) + noise, 0, 1)


def straight(image):
    return straightened(image, find_container(image).corners, *GRID)[0]


@pytest.fixture(scope="module")
def untrained():
    """What is normal for drawn scenes, without trees; thresholds from their own highest places."""
    clean = [maps_of(straight(noisy(seed, load)), OPAQUE) for seed in range(2) for load in ("stacks", "empty")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normal, "LEAST_KNOWN", 2)
        usual = learn_normal(clean, np.random.default_rng(0))
    fuser = Fuser(features=(), trees=None, normal=usual, thresholds={}, about=About())
    tops = [look(straight(noisy(seed)), OPAQUE, fuser).places[0].score for seed in (7, 8)]
    return msgspec.structs.replace(fuser, thresholds={"any": {"one": max(tops), "tenth": 1.2 * max(tops)}})


@pytest.fixture(scope="module")
def profile(untrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuser") / "drawn.npz"
    path.write_bytes(fusers.to_bytes(untrained))
    return ImageProfile(fuser=str(path))


def test_textures():
    assert texture_of(maps_of(straight(noisy(0, "empty")), OPAQUE)) == "empty"
    even = scene(load="empty")
    even[140:420, 285:1215] *= 0.35
    assert texture_of(maps_of(straight(even), OPAQUE)) == "homogeneous"
    rng = np.random.default_rng(0)
    even[140:420, 285:1215] *= rng.uniform(0.5, 1, (28, 93)).repeat(10, 0).repeat(10, 1)
    assert texture_of(maps_of(straight(even), OPAQUE)) == "restless"


def test_rarity_is_one_for_one_place_per_scan_and_two_for_one_in_ten(untrained):
    limits = {"any": {"one": -2.0, "tenth": 1.0}, "empty": {"one": 0.0, "tenth": 1.0}}
    fuser = msgspec.structs.replace(untrained, thresholds=limits)
    assert rarity(-2.0, "restless", fuser) == 1.0
    assert rarity(1.0, "restless", fuser) == 2.0
    assert rarity(1.0, "empty", fuser) == 2.0
    assert rarity(4.0, "restless", fuser) == 3.0
    assert rarity(4.0, "restless", msgspec.structs.replace(fuser, thresholds={})) == 4.0


def test_regions_lie_in_the_image(untrained):
    image = noisy(4)
    image[110:135, 700:730] *= 0.4
    regions = suspicious_regions(image, find_container(image), untrained, OPAQUE)
    first = regions[0]
    assert 697 <= first.peak[0] <= 733
    assert 107 <= first.peak[1] <= 138
    assert overlap(first.box, (700, 110, 730, 135)) > 0.2
    assert first.score > max(2.0, regions[1].score)


@pytest.mark.parametrize("first_channel", ["top", "bottom"])
def test_judgement_tells_an_odd_place_and_why(profile, first_channel):
    image = scene()
    image[180:205, 700:730] *= 0.5
    scan = radiograph(image, state="raw", noise=0.005, first_channel=first_channel)
    judged = judge_image(scan, profile)
    found = [f for f in judged.findings if f.kind == "unlike_its_surroundings"]
    assert found
    where = found[0].where
    y0, y1 = where.first_channel, where.end_channel
    if first_channel == "bottom":
        y0, y1 = 600 - y1, 600 - y0
    assert overlap((where.first_column, y0, where.end_column, y1), (700, 180, 730, 205)) > 0.2
    assert found[0].tier == "review"
    assert "times the usual there" in found[0].reason
    assert judged.scores["unlike_its_surroundings"] >= 2
    assert not [f for f in judged.findings if f.kind.startswith("local_contrast")]


def test_judgement_does_not_depend_on_threads(profile):
    scan = radiograph(noisy(3), state="raw")
    with ThreadPoolExecutor(2) as pool:
        one, other = judge_image(scan, profile), judge_image(scan, profile, map_strips=pool.map)
    assert (one.findings, one.scores) == (other.findings, other.scores)


def test_without_a_fuser_no_place_is_called_unlike_its_surroundings():
    judged = judge_image(radiograph(noisy(0), state="raw"), ImageProfile(fuser="none"))
    assert "unlike_its_surroundings" not in judged.scores
    assert "local_contrast_dark" in judged.scores


def test_the_package_carries_a_fuser_that_says_what_it_was_trained_on():
    fuser = fusers.fuser_named("packaged")
    assert fuser is not None
    assert fuser.trees is not None
    assert len(fuser.about.trained_on) == 33
    assert fuser.about.simulated == "48 scans by this package's simulator"
    assert {"any", "empty", "homogeneous", "restless"} <= fuser.thresholds.keys()
    assert fusers.PACKAGED.stat().st_size < 500_000


def test_the_packaged_fuser_knows_the_scans_it_was_trained_on(shared_data):
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (shared_data / "cargo").glob("*.jpg")}
    fuser = fusers.fuser_named("packaged")
    assert fuser is not None
    assert set(fuser.about.trained_on) <= digests


def test_a_fuser_that_is_not_there_is_told():
    with pytest.raises(DataError, match="cannot be read"):
        judge_image(radiograph(noisy(0), state="raw"), ImageProfile(fuser="/nowhere/fuser.npz"))


def test_a_package_without_its_fuser_does_not_search_by_less(monkeypatch, tmp_path):
    monkeypatch.setattr(fusers, "PACKAGED", tmp_path / "lost.npz")
    fusers.fuser_named.cache_clear()
    with pytest.raises(DataError, match="cannot be read"):
        judge_image(radiograph(noisy(0), state="raw"), ImageProfile())
    fusers.fuser_named.cache_clear()


def test_an_unknown_texture_is_said_once_and_its_places_ask_for_nothing(profile):
    rng = np.random.default_rng(0)
    image = scene(load="empty")
    lumps = np.exp(-1.2 * rng.random((34, 116)))
    image[90:430, 270:1240] *= lumps.repeat(10, 0).repeat(10, 1)[:340, :970].astype(np.float32)
    judged = judge_image(radiograph(image, state="raw", noise=0.005), profile)
    told = [f for f in judged.findings if f.kind == "texture_unknown"]
    assert len(told) == 1
    assert told[0].tier == "review"
    assert "looks like none of the 4 clean scans" in told[0].reason
    places = [f for f in judged.findings if f.kind == "unlike_its_surroundings"]
    assert [f.tier for f in places] in ([], ["note"])


def test_little_load_has_no_texture_to_be_unknown(untrained):
    seen = look(straight(noisy(0, "empty")), OPAQUE, untrained)
    assert seen.strange is None
    assert not texture_unknown(seen)
    assert unlike_all_that_was_learnt(seen, untrained) == []
    strange = Seen(seen.maps, "restless", [Place(1.0, (0, 0), (0, 0, 1, 1))], 1.5)
    assert texture_unknown(strange)
    assert unlike_all_that_was_learnt(strange, untrained)[0].score == 1.5


def test_what_was_learnt_from_too_few_loads_knows_no_load(untrained):
    few = learn_normal([maps_of(straight(noisy(seed)), OPAQUE) for seed in range(3)], np.random.default_rng(0))
    assert few.familiar is None
    fuser = fusers.from_bytes(fusers.to_bytes(msgspec.structs.replace(untrained, normal=few)), "few")
    seen = look(straight(noisy(5)), OPAQUE, fuser)
    (told,) = unlike_all_that_was_learnt(seen, fuser)
    assert told.tier == "review" and "fewer than 20 of the 3 clean scans" in told.reason
