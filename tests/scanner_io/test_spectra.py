"""Spectrum files of other kinds, through SandiaSpecUtils where it is installed."""

from __future__ import annotations

import datetime as dt
import sys

import pytest

from scanner_io.errors import DataError
from scanner_io.formats import n42
from scanner_io.formats.spectra import read_spectra

from .n42_samples import portal_xml


@pytest.fixture
def pcf(tmp_path):
    spec_utils = pytest.importorskip("SpecUtils", reason="SandiaSpecUtils is in the extra `spectra`")
    file = spec_utils.SpecFile()
    for sample in (1, 2):
        for name, scale in (("Aa1", 1), ("Ba1", 2)):
            m = spec_utils.Measurement.new()
            m.setGammaCounts([float(i * scale) for i in range(64)], 0.9, 1.0)
            m.setNeutronCounts([3.0 * sample], 1.0)
            m.setDetectorName(name)
            m.setSampleNumber(sample)
            m.setStartTime(dt.datetime(2026, 1, 31, 9, 45, sample))
            m.setSourceType(spec_utils.SourceType.Foreground)
            m.setOccupancyStatus(spec_utils.OccupancyStatus.Occupied)
            file.addMeasurement(m, False)
    file.cleanupAfterLoad(True, False, False)
    path = tmp_path / "two.pcf"
    names = file.detectorNames()
    file.writeToFile(str(path), file.sampleNumbers(), names, spec_utils.SaveSpectrumAsType.Pcf)
    return path


def test_a_pcf_file_keeps_every_count(pcf):
    document = read_spectra(pcf)
    ramp = sum(range(64))
    assert sum(s.total for m in document.measurements for s in m.spectra) == 2 * (1 + 2) * ramp
    assert sum(sum(g.counts) for m in document.measurements for g in m.gross) == 2 * (3 + 6)
    assert {d.category for d in document.detectors} == {"Gamma", "Neutron"}
    assert {m.real_time_s for m in document.measurements} == {1.0}
    assert [s.live_time_s for m in document.measurements for s in m.spectra] == pytest.approx([0.9] * 4)
    assert document.measurements[0].start_utc_ns == 1_769_852_701_000_000_000
    assert "may pass over damage in silence" in str(document.problems[-1])
    assert not document.problems[-1].harmless
    again = n42.read(n42.write(document))
    assert sum(s.total for m in again.measurements for s in m.spectra) == 2 * (1 + 2) * ramp


def test_an_n42_file_is_refused_for_its_own_reader_keeps_more(tmp_path):
    path = tmp_path / "portal.pcf"
    path.write_bytes(portal_xml())
    with pytest.raises(DataError, match="is an N42 file; read it with"):
        read_spectra(path)


def test_what_is_no_spectrum_file_is_refused(tmp_path):
    pytest.importorskip("SpecUtils", reason="SandiaSpecUtils is in the extra `spectra`")
    path = tmp_path / "junk.pcf"
    path.write_bytes(b"\x07junk" * 100)
    with pytest.raises(DataError, match=r"junk\.pcf: SpecUtils cannot read it"):
        read_spectra(path)
    with pytest.raises(DataError, match="no such file"):
        read_spectra(tmp_path / "none.pcf")


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SpecUtils", None)
    path = tmp_path / "some.spc"
    path.write_bytes(b"\x07" * 600)
    with pytest.raises(DataError, match=r"need the package SandiaSpecUtils.*install scanlane\[spectra\]"):
        read_spectra(path)
