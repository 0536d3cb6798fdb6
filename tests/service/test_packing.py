"""Chunks packed by our kernels against libhdf5's own filters."""

import errno
import os
import subprocess

import cv2
import h5py
import numpy as np
import pytest

from scanner_io import recording
from scanner_io.errors import DataError, StorageError
from tests import samples
from tests.bench.scenes import _simulated
from triage.service.packing import Packing, packer
from triage.study.phantom import phantom


def plain_detector(channels, **changes):
    """A detector of any size."""
    return samples.detector(channels, air_channels=None, bad_channels=np.zeros(channels, bool), **changes)


def image_of(path):
    """Chunks and filters of the stored image, and its values as libhdf5's filters read them."""
    with h5py.File(path) as file:
        stored = file["entry/data/high"]
        plist = stored.id.get_create_plist()
        filters = [plist.get_filter(i)[::2] for i in range(plist.get_nfilters())]
        return stored.chunks, filters, stored.id.get_storage_size(), stored[()]


@pytest.mark.parametrize("codec", ["none", "bitshuffle-lz4"])
@pytest.mark.parametrize("first_channel", ["top", "bottom"])
@pytest.mark.parametrize(("columns", "channels"), [(60, 40), (1, 64), (777, 301), (4099, 259), (5, 3)])
def test_packed_chunks_are_what_libhdf5_makes(tmp_path, codec, first_channel, columns, channels):
    detector = plain_detector(channels, first_channel=first_channel)
    image = samples.radiograph(columns, channels, detector=detector)
    scan = samples.scan(radiograph=image)
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan, codec=codec, packer=Packing())
    packed = image_of(path)
    assert list(recording.check(path)) == []
    read = recording.read(path).scan.radiograph.counts
    assert all(np.array_equal(a, b) for a, b in zip(read, image.counts, strict=True))
    recording.write(path, scan, codec=codec, replace=True)
    plain = image_of(path)
    assert packed[:2] == plain[:2]
    assert np.array_equal(packed[3], plain[3])
    if codec == "none":
        assert packed[2] == plain[2]


@pytest.mark.parametrize(
    "name", ["cargo/truck_05.jpg", "xray16/linescan/onion_negative.tif", "xray16/flatpanel/Fusion2-120kV.png"]
)
def test_compression_is_as_small_as_libhdf5s_on_real_images(tmp_path, shared_data, name):
    counts = cv2.imread(str(shared_data / name), cv2.IMREAD_UNCHANGED)
    counts = np.ascontiguousarray((counts if counts.ndim == 2 else counts[..., 0]).T).astype(np.uint16)
    detector = plain_detector(counts.shape[1], energies=("high",))
    times = np.arange(len(counts), dtype=np.int64)
    scan = samples.scan(radiograph=samples.radiograph(detector=detector, counts=(counts,), column_utc_ns=times))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    assert_small(path, scan)


@pytest.mark.parametrize("scene", ["phantom", "simulated"])
def test_compression_is_as_small_as_libhdf5s_on_noise_of_counting(tmp_path, scene):
    counts = phantom(1000, 1500)[0] if scene == "phantom" else _simulated(1000, 600)[0]
    detector = plain_detector(1000)
    image = samples.radiograph(
        detector=detector, counts=counts, column_utc_ns=np.arange(len(counts[0]), dtype=np.int64)
    )
    scan = samples.scan(radiograph=image)
    assert_small(tmp_path / f"{scan.scan_id}.scan.h5", scan)


def assert_small(path, scan):
    recording.write(path, scan, packer=Packing())
    ours = image_of(path)[2]
    recording.write(path, scan, replace=True)
    assert ours <= 1.02 * image_of(path)[2]


def test_an_unknown_codec_is_left_to_libhdf5(tmp_path):
    assert packer("gzip") is None
    scan = samples.scan()
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    with pytest.raises(DataError, match="without a packer"):
        recording.write(path, scan, codec="gzip", packer=Packing())
    assert list(tmp_path.iterdir()) == []


def test_the_hash_is_of_the_bytes_that_are_there(tmp_path):
    scan = samples.scan()
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    told = recording.write(path, scan, packer=Packing())
    assert told == subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert recording.write(path, scan, packer=Packing(), hashed=False, replace=True) == ""


@pytest.mark.parametrize("packed", [True, False])
def test_a_disk_that_fills_up_in_mid_recording_is_an_error_that_leaves_nothing(small_disk, packed):
    small = small_disk("2m")
    scan = samples.scan(radiograph=samples.radiograph(2000, 800))
    with pytest.raises(StorageError, match="free space"):
        recording.write(small / "too large", scan, codec="none", packer=Packing() if packed else None)
    assert list(small.iterdir()) == []
    recording.write(small / f"{scan.scan_id}.scan.h5", samples.scan(), codec="none")
    assert recording.check(small / f"{scan.scan_id}.scan.h5") == []


@pytest.mark.parametrize("fails_at", [1, 3])
@pytest.mark.parametrize(("number", "advice"), [(errno.EIO, "check the disk"), (errno.ENOSPC, "free space")])
def test_a_disk_error_in_mid_recording_is_an_error_that_leaves_nothing(tmp_path, faulty_disk, fails_at, number, advice):
    def fault(call):
        written = [c for c in faulty.calls if c.name == "pwrite"]
        return errno.errorcode[number] if call.name == "pwrite" and len(written) >= fails_at else None

    faulty = faulty_disk(fault)
    scan = samples.scan(radiograph=samples.radiograph(600, 800))
    with pytest.raises(StorageError, match=f"{os.strerror(number)}.*{advice}"):
        recording.write(tmp_path / f"{scan.scan_id}.scan.h5", scan, codec="none", packer=Packing())
    assert list(tmp_path.iterdir()) == []
    # nothing is written after the first error
    assert [c.name for c in faulty.calls] == ["open", "allocate", *["pwrite"] * fails_at, "unlink"]


@pytest.mark.parametrize("codec", ["none", "bitshuffle-lz4"])
def test_counts_are_copied_from_a_recording_as_they_are_stored(tmp_path, codec, monkeypatch):
    scan = samples.scan(radiograph=samples.radiograph(700, 300, detector=plain_detector(300, first_channel="bottom")))
    path, again = tmp_path / f"{scan.scan_id}.scan.h5", tmp_path / "again.scan.h5"
    result = samples.result(scan_id=scan.scan_id)
    recording.write(path, scan, codec=codec, packer=Packing())
    recording.write(again, scan, codec=codec, packer=Packing(), result=result)
    packed = image_of(again)
    monkeypatch.setattr(Packing, "pack", None)
    recording.write(path, scan, codec=codec, packer=Packing(), result=result, replace=True, counts_from=path)
    copied = image_of(path)
    assert copied[:3] == packed[:3]
    assert np.array_equal(copied[3], packed[3])
    assert again.read_bytes() == path.read_bytes()
    assert recording.check(path) == []


def test_damaged_or_differently_stored_counts_are_not_copied(tmp_path):
    scan = samples.scan(radiograph=samples.radiograph(700, 300, detector=plain_detector(300)))
    path, other = tmp_path / f"{scan.scan_id}.scan.h5", tmp_path / "other.scan.h5"
    recording.write(path, scan, packer=Packing())

    def copied(**changes):
        recording.write(other, scan, **{"packer": Packing(), "counts_from": path, **changes})

    with pytest.raises(DataError, match="is stored as"):
        copied(codec="none")
    smaller = samples.scan(radiograph=samples.radiograph(600, 300, detector=plain_detector(300)))
    with pytest.raises(DataError, match="is stored as"):
        recording.write(other, smaller, packer=Packing(), counts_from=path)
    with pytest.raises(DataError, match="cannot be copied"):
        copied(counts_from=tmp_path / "none")
    with h5py.File(path) as file:
        at = file["entry/data/high"].id.get_chunk_info(0).byte_offset
    whole = path.read_bytes()
    for bit in range(8):
        path.write_bytes(whole[: at + 100] + bytes([whole[at + 100] ^ 1 << bit]) + whole[at + 101 :])
        with pytest.raises(DataError, match="damaged"):
            copied()
    path.write_bytes(whole[: at + 100])
    with pytest.raises(DataError, match="cannot be copied"):
        copied()
    assert list(tmp_path.iterdir()) == [path]
