import hashlib
import io
import os
import re
import shutil
import struct
import subprocess
from contextlib import contextmanager

import h5py
import msgspec
import msgspec.inspect as types
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner_io import recording, seal
from scanner_io.errors import DataError, StorageError
from scanner_io.exact import Exact
from scanner_io.model import (
    DeclarationMatch,
    Finding,
    LaneEvent,
    PortalSettings,
    Quality,
    Scan,
    Standing,
    TriageResult,
)
from scanner_io.storage import PART, quarantine_parts, write_durable
from tests import samples

CODECS = ("bitshuffle-lz4", "gzip", "none")


@contextmanager
def opened_to_change(path):
    """Open a recording as one from before there was a seal: what finds a change is the check itself."""
    with h5py.File(path, "r+") as file:
        del file.attrs["seal"]
        yield file


def same_struct(a, b):
    """Compare two structs field by field, arrays by value."""
    for name in a.__struct_fields__:
        x, y = getattr(a, name), getattr(b, name)
        if isinstance(x, np.ndarray):
            np.testing.assert_array_equal(x, y, err_msg=name)
            assert x.dtype == y.dtype, name
        elif isinstance(x, tuple) and x and isinstance(x[0], np.ndarray):
            for i, j in zip(x, y, strict=True):
                np.testing.assert_array_equal(i, j, err_msg=name)
        elif isinstance(x, msgspec.Struct) and isinstance(y, type(x)):
            same_struct(x, y)
        else:
            assert x == y, name


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("first_channel", ["top", "bottom"])
def test_what_is_written_is_read_back(tmp_path, codec, first_channel):
    scan = samples.scan(radiograph=samples.radiograph(detector=samples.detector(first_channel=first_channel)))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan, config={"lane": {"name": "north"}}, result=samples.result(), codec=codec)
    stored = recording.read(path)
    same_struct(scan, stored.scan)
    assert stored.result == samples.result()
    assert stored.config == {"lane": {"name": "north"}}
    assert recording.check(path) == []


def windowed(by_detector=False):
    """A portal record with energy windows, neutron times and every setting told; raw lines as the portal sends them."""
    rng = np.random.default_rng(3)
    shape = (12, 4, 3) if by_detector else (12, 4)
    windows = rng.poisson(80, shape).astype(np.int64)
    plain = samples.portal()
    told = PortalSettings(
        nsigma=5.0, gamma_detectors_on="1111", gamma_levels=(0.069, None, 0.069, 0.455),
        neutron_levels=(0.504, 5.04, 0.504, 5.04), gamma_background_s=20, gamma_background_sigma=0.0, relay_output=1,
        neutron_max_intervals=3, neutron_alpha=4, neutron_zmax=1200, neutron_sequential_intervals=1,
        neutron_background_s=120, software="A", lines=("SG1",),
    )  # fmt: skip
    lines = [] if by_detector else ["AS," + ",".join(f"{c:06d}" for c in row) for row in windows]
    return samples.portal(
        gamma_windows=windows,
        gamma_windows_background=rng.uniform(200, 600, shape[1:]),
        gamma_windows_alarm=np.arange(12) == 5,
        neutron_arrival_ns=samples.START_NS + np.arange(2, dtype=np.int64) * 1_000_000_000,
        neutron_start_utc_ns=samples.START_NS - 1_000_000_000,
        settings=told,
        raw_lines=(*plain.raw_lines, *lines),
    )


@pytest.mark.parametrize("by_detector", [False, True])
def test_energy_windows_and_neutron_times_are_read_back(tmp_path, by_detector):
    scan = samples.scan(portal=windowed(by_detector))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan)
    stored = recording.read(path).scan
    same_struct(scan, stored)
    assert stored.portal.gamma_windows.ndim == 2 + by_detector
    assert recording.check(path) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma_windows", np.zeros((12, 4), np.int64)),
        ("gamma_windows_background", np.full(4, 1.0)),
        ("gamma_windows_alarm", np.zeros(12, np.bool_)),
        ("neutron_arrival_ns", np.zeros(2, np.int64)),
        ("neutron_start_utc_ns", 5),
        ("settings", PortalSettings(nsigma=5.0, neutron_background_s=60)),
    ],
)
def test_what_was_added_to_a_portal_record_is_hashed(name, value):
    before = samples.scan(portal=windowed())
    after = samples.scan(portal=msgspec.structs.replace(before.portal, **{name: value}))
    assert recording.content_sha256(before, {}, None) != recording.content_sha256(after, {}, None)


def test_the_hash_of_an_older_recording_stays_what_it_was():
    """Of a scan without what was added since; written down when there was nothing else."""
    told = recording.content_sha256(samples.scan(), {"lane": {"name": "north"}}, samples.result())
    assert told == "c4fdfb7e8ebebae6974dfd347f668d2800176b66134073645a75a895f756c54c"


def test_whole_numbers_in_fields_of_floats_hash_alike_after_reading(tmp_path):
    event = LaneEvent(utc_ns=samples.START_NS, kind="weighbridge", weight_kg=23_460)
    scan = samples.scan(declaration=samples.declaration(gross_weight_kg=24_000), lane_events=(event,))
    standing = Standing(
        p_value=0,
        level=np.float32(0.5),
        stratum="s",
        scans=3,
        cell=("a", "b"),
        scores={"x": 1},
        vital_signs={"v": None},
    )
    result = samples.result(findings=(Finding(kind="k", score=4, reason="r", tier="note"),), standing=standing)
    recording.write(tmp_path / f"{scan.scan_id}.scan.h5", scan, result=result)
    stored = recording.read(tmp_path / f"{scan.scan_id}.scan.h5")
    assert stored.result == result and type(result.findings[0].score) is float
    assert recording.content_sha256(stored.scan, {}, stored.result) == recording.content_sha256(scan, {}, result)
    assert recording.check(tmp_path / f"{scan.scan_id}.scan.h5") == []


def test_every_stored_struct_with_a_float_is_exact():
    waiting, seen = [types.type_info(Scan), types.type_info(TriageResult)], {}
    while waiting:
        told = waiting.pop()
        if isinstance(told, types.StructType) and told.cls not in seen:
            seen[told.cls] = any(isinstance(f.type, types.FloatType) for f in told.fields)
            waiting += [f.type for f in told.fields]
        inside = ("types", "item_types", "item_type", "value_type")
        waiting += [t for name in inside for t in _listed(getattr(told, name, ()))]
    assert sum(seen.values()) > 4 and not [c for c, floats in seen.items() if floats and not issubclass(c, Exact)]


def _listed(told):
    return told if isinstance(told, tuple) else (told,)


def test_windows_that_no_raw_line_tells_are_found(tmp_path):
    record = windowed()
    changed = record.gamma_windows.copy()
    changed[7, 2] += 1
    scan = samples.scan(portal=msgspec.structs.replace(record, gamma_windows=changed))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan)
    (problem,) = recording.check(path)
    assert problem.check == "portal windows" and problem.where == "gamma_windows[7]"


def reading(time_s, gamma, neutron):
    """A reading of 14 fields as `drivers.rpm_aspect` keeps it."""
    return f"{time_s},1,128,{gamma},305.5,1,128,{neutron},2.5,1,7,0,2200,0"


@pytest.mark.parametrize("base", [None, 100])
def test_readings_are_compared_with_the_counts(tmp_path, base):
    gamma = np.array([[60], [61], [70]], np.int64)
    neutron = np.array([[1], [0], [2]], np.int64)
    if base is None:
        lines = [reading(i, g, n) for i, (g, n) in enumerate(zip(gamma[:, 0], neutron[:, 0], strict=True))]
    else:  # the counts run on, and over 32 bits
        run = (2**32 - base + np.concatenate([[0], np.cumsum(gamma[:, 0])])) % 2**32
        run_n = np.concatenate([[0], np.cumsum(neutron[:, 0])])
        lines = [reading(i, g, n) for i, (g, n) in enumerate(zip(run, run_n, strict=True))]
        lines[0] = "[base] " + lines[0]
    flags = {f"{s}_alarm": np.zeros(3, np.bool_) for s in ("gamma", "neutron")}
    record = samples.portal(
        gamma=gamma, neutron=neutron, **flags, raw_lines=tuple(lines), settings=None,
        gamma_arrival_ns=samples.START_NS + np.arange(3, dtype=np.int64) * 200_000_000,
        gamma_background=np.array([305.5]), neutron_background=np.array([2.5]),
    )  # fmt: skip
    path = tmp_path / f"{samples.SCAN_ID}.scan.h5"
    recording.write(path, samples.scan(portal=record))
    assert recording.check(path) == []
    other = msgspec.structs.replace(record, gamma=np.add(gamma, [[0], [0], [5]]))
    recording.write(path, samples.scan(portal=other), replace=True)
    assert [(p.check, p.where) for p in recording.check(path)] == [("portal counts", "gamma[2]")]
    shorter = msgspec.structs.replace(record, raw_lines=tuple(lines[:-1]))
    recording.write(path, samples.scan(portal=shorter), replace=True)
    assert {p.check for p in recording.check(path)} == {"portal lines"}


@pytest.mark.parametrize("missing", ["radiograph", "portal", "declaration"])
def test_parts_may_be_absent(tmp_path, missing):
    flag = samples.Quality(code=f"{missing}_missing", reason="none came")
    scan = samples.scan(**{missing: None}, quality=(flag,))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan)
    same_struct(scan, recording.read(path).scan)
    assert recording.check(path) == []


def test_the_default_plot_is_the_upright_radiograph(tmp_path):
    nxdata = pytest.importorskip("silx.io.nxdata", reason="silx is a test extra")
    import silx.io

    scan = samples.scan()
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan)
    with silx.io.open(str(path)) as file:
        default = nxdata.get_default(file)
        assert default.is_image
        # 60 columns of 40 channels, channel 0 at the bottom: 40 rows, column k at x = k.
        assert default.signal.shape == (40, 60)
        np.testing.assert_array_equal(default.signal[()], scan.radiograph.counts[1].T[::-1])
        assert [a[()][1] for a in default.axes] == [5.0, 4.0]
    with h5py.File(path) as file:
        assert file[f"{file.attrs['default'].decode()}/data/x"].attrs["units"] == b"mm"
        assert file.attrs["simulated"]


def test_gzip_opens_in_h5dump_without_plugins(tmp_path):
    h5dump = shutil.which("h5dump")
    if h5dump is None:
        pytest.skip("h5dump is not installed (Debian package hdf5-tools)")
    scan = samples.scan(radiograph=samples.radiograph(columns=3, channels=5))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan, codec="gzip")
    command = [h5dump, "-d", "/entry/data/high", "-y", "-w", "0", str(path)]
    without_plugins = {**os.environ, "HDF5_PLUGIN_PATH": ""}
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=without_plugins)
    assert "( 5, 3 )" in out.stdout
    shown = [int(v) for v in re.findall(r"\d+", out.stdout.split("DATA {")[1].split("}")[0])]
    assert shown == scan.radiograph.upright().ravel().tolist()


def test_every_flipped_bit_of_the_pixels_is_found(tmp_path):
    scan = samples.scan(portal=None, declaration=None, expected=("radiograph",))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    data = bytearray(recording.build(scan))
    path.write_bytes(data)
    with h5py.File(path) as file:
        chunk = file["entry/data/high"].id.get_chunk_info(0)
    rng = np.random.default_rng(0)
    for position in rng.integers(chunk.byte_offset, chunk.byte_offset + chunk.size, 40):
        broken = bytearray(data)
        broken[position] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        problems = recording.check(path)
        assert problems, f"a flip at byte {position} was not seen"
        with pytest.raises(DataError, match=path.name):
            recording.read(path)


def test_check_names_index_and_values(tmp_path):
    times = samples.START_NS + np.arange(60, dtype=np.int64)
    times[31] = 5
    limited = samples.detector(saturation_value=7000)
    scan = samples.scan(radiograph=samples.radiograph(column_utc_ns=times, detector=limited))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan)
    text = "\n".join(str(p) for p in recording.check(path))
    assert "column_utc_ns[31]: 5 after" in text
    assert "above saturation_value 7000" in text


def test_check_compares_counts_with_the_raw_lines(tmp_path):
    record = samples.portal()
    lines = list(record.raw_lines)
    lines[3] = "GS,000001,000002,000003,000004"
    scan = samples.scan(portal=samples.portal(raw_lines=tuple(lines)))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan)
    (problem,) = recording.check(path)
    assert problem.check == "portal counts"
    assert problem.where == "gamma[3]"


def test_a_clear_in_spite_of_a_flag_is_found(tmp_path):
    scan = samples.scan()
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan, result=samples.result(outcome="CLEAR"))
    assert [p.check for p in recording.check(path)] == ["result"]


def test_foreign_and_hostile_files_are_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\x00" * 9600)
    scan = samples.scan(portal=None, declaration=None, expected=("radiograph",))
    path = tmp_path / f"{scan.scan_id}.scan.h5"

    def rewritten(change):
        path.write_bytes(recording.build(scan, codec="none"))
        with opened_to_change(path) as file:
            change(file)
        with pytest.raises(DataError) as caught:
            recording.read(path)
        return str(caught.value)

    def external_storage(file):
        del file["entry/instrument/detector_high/data"]
        file["entry/instrument/detector_high"].create_dataset(
            "data", (40, 60), "u2", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
        )

    def external_link(file):
        del file["entry/instrument/detector_high/data"]
        file["entry/instrument/detector_high/data"] = h5py.ExternalLink(str(path), "/entry/data/low")

    def virtual(file):
        del file["entry/instrument/detector_high/data"]
        layout = h5py.VirtualLayout((40, 60), "u2")
        layout[:] = h5py.VirtualSource(str(path), "entry/data/low", (40, 60))
        file["entry/instrument/detector_high"].create_virtual_dataset("data", layout)

    def bomb(file):
        del file["entry/instrument/detector_high/data"]
        file["entry/instrument/detector_high"].create_dataset("data", (100_000, 100_000), "u2", chunks=(1000, 1000))

    def newer(file):
        file.attrs["schema_version"] = 99

    assert "another file" in rewritten(external_storage)
    assert "own part" in rewritten(external_link)
    assert "another file" in rewritten(virtual)
    assert "at most" in rewritten(bomb)
    assert "upgrade" in rewritten(newer)
    path.write_bytes(b"not HDF5 at all")
    with pytest.raises(DataError, match="not readable"):
        recording.read(path)
    assert [p.check for p in recording.check(tmp_path / "absent")] == ["readable"]


def test_a_recording_is_never_overwritten_by_accident(tmp_path):
    path = tmp_path / "a"
    write_durable(path, b"one")
    with pytest.raises(StorageError, match="exists already"):
        write_durable(path, b"two")
    assert path.read_bytes() == b"one"
    write_durable(path, b"two", replace=True)
    assert path.read_bytes() == b"two"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_a_full_disk_is_an_error_that_leaves_nothing(small_disk):
    small = small_disk("256k")
    with pytest.raises(StorageError, match="free space"):
        write_durable(small / "big", bytes(1 << 20))
    assert list(small.iterdir()) == []
    write_durable(small / "fits", bytes(1 << 10))
    assert (small / "fits").read_bytes() == bytes(1 << 10)


def test_parts_of_killed_writers_are_put_aside_with_a_reason(tmp_path):
    folder, quarantine = tmp_path / "recordings", tmp_path / "quarantine"
    (folder / "north").mkdir(parents=True)
    for content in (b"first", b"second"):
        (folder / "north" / f"x.scan.h5.1.1{PART}").write_bytes(content)
        quarantine_parts(folder, quarantine)
    kept = sorted(p.name for p in quarantine.iterdir())
    assert len(kept) == 4
    assert sum(name.endswith(".reason.txt") for name in kept) == 2
    assert list((folder / "north").iterdir()) == []


def test_upright_is_undone_by_the_reader():
    rng = np.random.default_rng(3)
    for columns, channels in ((1, 1), (513, 33), (40, 700)):
        counts = rng.integers(0, 65535, (columns, channels)).astype(np.uint16)
        np.testing.assert_array_equal(recording.upright(counts, "top"), counts.T)
        np.testing.assert_array_equal(recording.upright(counts, "bottom"), counts.T[::-1])


# -- files that somebody changed -----------------------------------------------------------------------------------


def _deleted(file, name):
    del file[name]


def _instead(make):
    def change(file, name):
        del file[name]
        make(file, name)

    return change


def _zeroed(file, name):
    values, attrs = file[name][()], dict(file[name].attrs)
    del file[name]
    file[name] = np.zeros_like(values) if np.any(values) else np.ones_like(values)
    file[name].attrs.update(attrs)


CHANGES = {
    "deleted": _deleted,
    "text": _instead(lambda f, n: f.create_dataset(n, data="x")),
    "number": _instead(lambda f, n: f.create_dataset(n, data=-7.5)),
    "complex": _instead(lambda f, n: f.create_dataset(n, data=1j)),
    "bytes": _instead(lambda f, n: f.create_dataset(n, data=np.void(b"\xff\xfe"))),
    "group": _instead(lambda f, n: f.create_group(n)),
    "loop": _instead(lambda f, n: f.__setitem__(n, h5py.SoftLink(f"/{n}"))),
    "elsewhere": _instead(lambda f, n: f.__setitem__(n, h5py.ExternalLink("/etc/passwd", "/x"))),
    "huge": _instead(lambda f, n: f.create_dataset(n, shape=(10**6, 10**6), dtype="u2", chunks=(100, 100))),
    "long": _instead(lambda f, n: f.create_dataset(n, shape=(2**40,), dtype="u1", chunks=(1 << 20,))),
}
FOR_VIEWERS = ("title", "time", "name", "program", "version", "outcome", "data/", "pixel_mask", "saturation", "size")
"""Said twice in the file, once for viewers, or with a default; not what `read` gives."""


def _whole(path):
    scan = samples.scan()
    recording.write(path, scan, config={"lane": "north"}, result=samples.result())
    names = []
    with h5py.File(path) as file:
        file.visititems(lambda name, one: names.append((name, isinstance(one, h5py.Dataset))))
    return names


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_part_is_a_problem_never_an_exception(tmp_path, change):
    path = tmp_path / f"{samples.SCAN_ID}{recording.SUFFIX}"
    for name, _ in _whole(path):
        path.unlink()
        _whole(path)
        with opened_to_change(path) as file:
            CHANGES[change](file, name)
        problems = recording.check(path)
        assert problems or any(word in name for word in FOR_VIEWERS), name


def test_changed_numbers_are_found_by_the_hashes(tmp_path):
    path = tmp_path / f"{samples.SCAN_ID}{recording.SUFFIX}"
    numbers = 0
    for name, is_data in _whole(path):
        path.unlink()
        _whole(path)
        with opened_to_change(path) as file:
            if not is_data or file[name].dtype.kind not in "iufb":
                continue
            _zeroed(file, name)
        numbers += 1
        twice = "/data/" in name and name.endswith(("x", "y"))
        first = "detector_low" in name and name.endswith(("pixel_mask", "saturation_value"))
        assert recording.check(path) or twice or first or name.endswith("size"), name
    assert numbers > 15


# -- the seal: every byte of a file is covered -----------------------------------------------------------------------


@given(st.integers(0, 10**9), st.integers(0, 7), st.booleans())
@settings(max_examples=60)
def test_every_flipped_bit_and_every_cut_is_found_without_the_outbox(tmp_path_factory, place, bit, cut):
    path = tmp_path_factory.mktemp("flip") / f"{samples.SCAN_ID}{recording.SUFFIX}"
    data = bytearray(recording.build(samples.scan()))
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= 1 << bit
    path.write_bytes(data)
    assert recording.check(path)
    with pytest.raises(DataError, match=path.name):
        recording.read(path)


def test_a_flip_in_the_structure_is_told_before_hdf5_sees_the_file(tmp_path, monkeypatch):
    path = tmp_path / f"{samples.SCAN_ID}{recording.SUFFIX}"
    data = bytearray(recording.build(samples.scan()))
    data[data.index(b"OHDR") + 4] ^= 1  # the version of an object header
    path.write_bytes(data)
    monkeypatch.setattr(h5py, "File", lambda *_, **__: pytest.fail("libhdf5 was given a damaged structure"))
    with pytest.raises(DataError, match="the file's structure hashes to"):
        recording.read(path)
    assert [p.check for p in recording.check(path)] == ["readable"]


def test_what_the_seal_leaves_to_checksums_is_the_counts(tmp_path):
    path = tmp_path / f"{samples.SCAN_ID}{recording.SUFFIX}"
    recording.write(path, samples.scan(), codec="none")
    with path.open("rb") as file:
        apart = seal.compared(file, "x")
    with h5py.File(path) as file:
        counts = [file[f"entry/instrument/detector_{e}/data"].id for e in ("low", "high")]
        assert sum(extent for _, extent in apart) == sum(c.get_chunk_info(0).size for c in counts)
    # one that leaves more to them is told, though its hash is right
    data = path.read_bytes()
    length = struct.unpack_from("<Q", data, len(data) - 32)[0]
    path.write_bytes(data[:length] + seal.made(io.BytesIO(data), length, [(8, 40), *apart]))
    assert [p.check for p in recording.check(path)] == ["seal"]


def test_a_seal_that_is_gone_is_told_and_an_older_recording_has_none(tmp_path):
    path = tmp_path / f"{samples.SCAN_ID}{recording.SUFFIX}"
    recording.write(path, samples.scan())
    assert recording.read(path).sealed
    with h5py.File(path, "r+") as file:  # libhdf5 cuts off what follows its own bytes
        file["entry/note"] = 1
    assert not seal.present(path)
    with pytest.raises(DataError, match="its seal is missing"):
        recording.read(path)
    with opened_to_change(path):
        pass
    assert recording.check(path) == []
    assert not recording.read(path).sealed
    with h5py.File(path, "r+") as file:
        file.attrs["seal"] = np.bytes_("scanlane seal 2")
    with pytest.raises(DataError, match=r"sealed as 'scanlane seal 2'.*upgrade"):
        recording.read(path)


def test_seals_of_other_places_and_lengths_are_refused():
    data = bytes(1000)
    sound = seal.made(io.BytesIO(data), 1000, [(300, 50), (100, 200), (600, 4)])
    assert seal.compared(io.BytesIO(data + sound), "x") == [(100, 250), (600, 4)]
    assert seal.compared(io.BytesIO(data), "x") is None
    assert seal.compared(io.BytesIO(sound[-20:]), "x") is None
    for apart in ([(900, 200)], [(100, 50), (120, 10)], [(5, 0)], [(2**64 - 1, 2**64 - 1)]):
        table = b"".join(struct.pack("<QQ", *one) for one in apart)
        tail = struct.pack("<32sQQ16s", bytes(32), 1000, len(apart), seal.MAGIC)
        with pytest.raises(DataError, match=r"x: its seal speaks of bytes"):
            seal.compared(io.BytesIO(data + table + tail), "x")
    for length, count in ((999, 0), (1000, 1), (2**64 - 1, 2**64 - 1)):
        tail = struct.pack("<32sQQ16s", bytes(32), length, count, seal.MAGIC)
        with pytest.raises(DataError, match="x: 1064 bytes, its seal is of"):
            seal.compared(io.BytesIO(data + tail), "x")


def test_recordings_of_the_first_schema_are_read_and_checked(tmp_path):
    scan = samples.scan()
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan)
    with opened_to_change(path) as file:
        sha256 = hashlib.sha256(b"".join(c.tobytes() for c in scan.radiograph.counts)).hexdigest()
        del file.attrs["pixels_hash"]
        file.attrs.create("pixels_sha256", np.bytes_(sha256))
        file.attrs["schema_version"] = 1
    assert recording.check(path) == []
    assert recording.read(path).pixels_hash == f"sha256:{sha256}"
    with h5py.File(path, "r+") as file:
        file.attrs["pixels_sha256"] = np.bytes_(sha256[::-1])
    assert [p.where for p in recording.check(path)] == ["/@pixels_hash"]
    with pytest.raises(DataError, match="pixels_hash"):
        recording.read(path)


@contextmanager
def opened_in_first_form(path, scan):
    """Write a recording and make of it what the first version wrote: attributes of variable length, one hash."""
    recording.write(path, scan, config={"lane": "north"}, result=samples.result())
    with h5py.File(path, "r+") as file:
        for name in ("seal", "pixels_hash", "content_sha256"):
            del file.attrs[name]
        pixels = hashlib.sha256(b"".join(c.tobytes() for c in scan.radiograph.counts)).hexdigest()
        file.attrs["pixels_sha256"] = pixels
        file.attrs["schema_version"] = 1

        def lengthen(_, one):
            for name, value in list(one.attrs.items()):
                if isinstance(value, bytes | np.bytes_):
                    one.attrs[name] = value.decode()
                elif isinstance(value, np.ndarray) and value.dtype.kind == "S":
                    one.attrs[name] = [v.decode() for v in value]

        lengthen("", file)
        file.visititems(lengthen)
        yield file


def test_recordings_of_the_first_form_are_read_apart(tmp_path):
    scan = samples.scan()
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    with opened_in_first_form(path, scan):
        pass
    assert b"GCOL" in path.read_bytes()  # the heap of texts of variable length
    found = recording.read(path)
    assert found.first_form and not found.sealed and found.content_sha256 == ""
    same_struct(found.scan, scan)
    assert (found.config, found.result) == ({"lane": "north"}, samples.result())
    assert recording.check(path) == []
    with path.open("rb") as file, pytest.raises(DataError, match="of the first form"):
        recording.read(path, file)  # in this process it is not


def test_what_is_wrong_with_one_of_the_first_form_is_told(tmp_path):
    path = tmp_path / f"{samples.SCAN_ID}.scan.h5"
    with opened_in_first_form(path, samples.scan()) as file:
        file.attrs["pixels_sha256"] = "0" * 64
    assert [p.where for p in recording.check(path)] == ["/@pixels_hash"]
    with pytest.raises(DataError, match="pixels_hash"):
        recording.read(path)
    path.unlink()
    with opened_in_first_form(path, samples.scan()) as file:
        file["entry/source_note"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(DataError, match="a link to another place"):
        recording.read(path)
    path.unlink()
    with opened_in_first_form(path, samples.scan()) as file:
        file.attrs["content_sha256"] = "0" * 64
    with pytest.raises(DataError, match="of variable length; such files are refused"):
        recording.read(path)  # a later one's texts are of fixed length


def test_no_text_is_kept_where_no_checksum_is(tmp_path):
    # One flipped bit in a global heap, which holds texts of variable length, and libhdf5 never comes back.
    assert b"GCOL" not in recording.build(samples.scan(), config={"a": "b"}, result=samples.result())
    path = tmp_path / f"{samples.SCAN_ID}{recording.SUFFIX}"
    _whole(path)
    with opened_to_change(path) as file:
        file["entry/instrument/line_detector"].attrs["note"] = "of variable length"
    (problem,) = recording.check(path)
    assert "of variable length; such files are refused" in problem.text


def test_how_a_declaration_was_found_comes_back(tmp_path):
    told = DeclarationMatch(
        state="doubtful", by="container", read=("CSQU30543B3",), declared="CSQU3054383", confidence=0.97,
        runner_up="CSQU3054388", runner_up_confidence=0.02, sender="CARRIER", document="MAN1", reference="1", version=2,
        received_utc_ns=1, late=True, problems=("two manifests",),
    )  # fmt: skip
    scan = msgspec.structs.replace(samples.scan(), declaration_match=told)
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan, config={})
    assert recording.read(path).scan.declaration_match == told
    assert not recording.check(path)
    assert recording.content_sha256(scan, {}, None) != recording.content_sha256(samples.scan(), {}, None)


@pytest.mark.parametrize(("code", "problems"), [("radiograph_unreadable", 0), ("radiograph_missing", 0), ("late", 1)])
def test_an_absent_image_must_be_told_by_a_flag_of_its_own(tmp_path, code, problems):
    scan = samples.scan(radiograph=None, quality=(Quality(code=code, reason="the file was cut off"),))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan)
    assert len([p for p in recording.check(path) if p.check == "completeness"]) == problems
