"""One form into another and back: every count is kept, and what is not there is said."""

import zipfile

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from scanner_io import recording
from scanner_io.errors import DataError, StorageError
from tests import samples
from tests.drivers.test_passages import FILES, T, drop_all, jpeg
from triage.cli import cli
from triage.service.convert import convert


@pytest.fixture
def stored(tmp_path):
    scan = samples.scan(radiograph=samples.radiograph(60, 40, ("4MV", "6MV")))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pictures_and_back(stored, tmp_path, suffix):
    *pictures, beside = convert(stored, tmp_path / f"out{suffix}")
    first = recording.read(stored)
    for energy, path in enumerate(pictures):
        shown = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert shown.dtype == np.uint16 and np.array_equal(shown, first.scan.radiograph.upright(energy))
    (again,) = convert(beside, tmp_path / "back" / stored.name)
    second = recording.read(again)
    assert second.pixels_hash == first.pixels_hash and recording.check(again) == []
    assert second.content_sha256 == recording.content_sha256(first.scan, {}, None)


def test_a_picture_that_was_changed_is_found(stored, tmp_path):
    *pictures, beside = convert(stored, tmp_path / "out.png")
    image = cv2.imread(str(pictures[0]), cv2.IMREAD_UNCHANGED)
    image[0, 0] ^= 1
    cv2.imwrite(str(pictures[0]), image)
    with pytest.raises(DataError, match="not those that were written"):
        convert(beside, tmp_path / "back.scan.h5")
    beside.write_text(beside.read_text().replace(pictures[0].name, f"../{pictures[0].name}"))
    with pytest.raises(DataError, match="outside its folder"):
        convert(beside, tmp_path / "back.scan.h5")


def test_other_systems_forms(stored, tmp_path):
    assert [p.name for p in convert(stored, tmp_path / "out.n42")] == ["out.n42"]
    (tmp_path / "dicos").mkdir()
    written = convert(stored, tmp_path / "dicos", kvp=6000.0)
    assert written and all(p.suffix == ".dcs" for p in written)
    drop_all(tmp_path)
    (tmp_path / FILES[0]).write_bytes(jpeg(1, rows=200))
    (made,) = convert(tmp_path / f"{T}.xml", tmp_path / "form.scan.h5")
    assert recording.read(made).scan.sidecar.scan_id == T
    (made,) = convert(tmp_path / FILES[0], tmp_path / "image.scan.h5")
    assert recording.read(made).scan.radiograph is not None


def test_two_energies_whose_names_tell_no_voltage(tmp_path):
    scan = samples.scan()
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan)
    with pytest.raises(DataError, match="--kvp low=6000"):
        convert(path, tmp_path / "dicos", kvp=6000.0)
    words = ["convert", str(path), str(tmp_path / "dicos"), "--kvp", "low=4000", "--kvp"]
    done = CliRunner().invoke(cli, [*words, "high=6000"])
    assert done.exit_code == 0 and len(list((tmp_path / "dicos").iterdir())) == 2, done.output
    (back,) = convert(tmp_path / "dicos", tmp_path / "back.scan.h5")
    again = recording.read(back).scan.radiograph
    assert again.detector.energies == ("4MV", "6MV")
    for energy in range(2):
        assert np.array_equal(again.upright(energy), scan.radiograph.upright(energy))
    for wrong, told in (("middle=6000", "middle"), ("high=x", "low=4000"), ("6000", "each with its energy")):
        done = CliRunner().invoke(cli, [*words, wrong])
        assert done.exit_code and told in done.output + str(done.exception)


def test_n42_files_become_recordings_with_every_count(stored, tmp_path):
    convert(stored, tmp_path / "out.n42")
    (made,) = convert(tmp_path / "out.n42", tmp_path / "back.scan.h5")
    first, second = recording.read(stored).scan.portal, recording.read(made).scan.portal
    assert np.array_equal(second.gamma, first.gamma) and np.array_equal(second.neutron, first.neutron)
    assert recording.check(made) == [], "a name that was chosen by hand is no fault"
    another = made.with_name("north-20260131T094501.250000Z-00000000.scan.h5")
    another.write_bytes(made.read_bytes())
    assert [p.check for p in recording.check(another)] == ["file name"]


def test_a_bundle_and_back(stored, tmp_path):
    (packed,) = convert(stored, tmp_path / "out.evidence.zip")
    with zipfile.ZipFile(packed) as archive:
        names = set(archive.namelist())
        shown = cv2.imdecode(np.frombuffer(archive.read("6MV-16bit.png"), np.uint8), cv2.IMREAD_UNCHANGED)
        page = archive.read("summary.html").decode()
    assert names == {
        stored.name,
        "scan.json",
        "summary.html",
        "4MV-16bit.png",
        "6MV-16bit.png",
        "preview.png",
        "SHA256SUMS",
    }
    assert np.array_equal(shown, recording.read(stored).scan.radiograph.upright(1))
    assert "not judged" in page and "the recording alone" in page
    checked = CliRunner().invoke(cli, ["verify", str(packed)])
    assert checked.exit_code == 0 and "sound" in checked.output
    (again,) = convert(packed, tmp_path / "back" / "any.scan.h5")
    assert again.read_bytes() == stored.read_bytes()
    harmed = bytearray(packed.read_bytes())
    harmed[harmed.index(b"\x89HDF") + 2000] ^= 1
    packed.write_bytes(harmed)
    with pytest.raises(DataError, match="CRC-32"):
        convert(packed, tmp_path / "back" / "other.scan.h5")
    assert not (tmp_path / "back" / "other.scan.h5").exists()


def test_a_folder_that_holds_something_else_is_not_half_read(stored, tmp_path):
    written = convert(stored, tmp_path / "dicos")
    assert len(written) == 2
    (tmp_path / "dicos" / "notes.txt").write_text("of another vehicle")
    with pytest.raises(DataError, match=r"notes\.txt"):
        convert(tmp_path / "dicos", tmp_path / "back.scan.h5")
    assert not (tmp_path / "back.scan.h5").exists()


def test_what_cannot_be(stored, tmp_path):
    convert(stored, tmp_path / "out.png")
    with pytest.raises(StorageError, match="there already"):
        convert(stored, tmp_path / "out.png")
    with pytest.raises(DataError, match="no form is known"):
        convert(stored, tmp_path / "out.uff")
    done = CliRunner().invoke(cli, ["convert", str(stored), str(tmp_path / "out.png"), "--replace"])
    assert done.exit_code == 0 and "out.scan.json written" in done.output
