"""Memory that a lane hands back after its start."""

import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from scanner_io import recording
from tests.service.daemon_rig import daemon, write_config
from triage.service import footprint
from triage.study.bench_record import _scan

SMAPS = """\
7f0000000000-7f0000010000 r-xp 00000000 fe:00 1234                       /usr/lib/libclean.so.6
Rss:                  64 kB
Anonymous:             0 kB
7f0000010000-7f0000020000 r--p 00010000 fe:00 1234                       /usr/lib/with space/libclean.so
Rss:                  64 kB
Anonymous:             0 kB
7f0000020000-7f0000030000 r--p 00020000 fe:00 1234                       /usr/lib/relocated.so
Anonymous:             4 kB
7f0000030000-7f0000040000 rw-p 00030000 fe:00 1234                       /usr/lib/writable.so
Anonymous:             0 kB
7f0000040000-7f0000050000 r--s 00000000 fe:00 1234                       /var/lib/shared.so
Anonymous:             0 kB
7f0000050000-7f0000060000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
7f0000060000-7f0000070000 r-xp 00000000 00:00 0
Anonymous:             0 kB
7f0000070000-7f0000080000 r--p 00000000 fe:00 77                         /state/recording.scan.h5
Anonymous:             0 kB
"""


def test_only_untouched_mappings_of_libraries_are_handed_back():
    found = list(footprint.clean_code(SMAPS.splitlines()))
    assert found == [(0x7F0000000000, 0x7F0000010000), (0x7F0000010000, 0x7F0000020000)]


def test_a_process_computes_the_same_with_less_memory():
    code = """
        import pathlib, threading
        import numpy as np
        from triage.analysis import screening
        from triage.service import footprint
        from triage.study.phantom import phantom

        def resident():
            lines = pathlib.Path("/proc/self/status").read_text().splitlines()
            return {k: int(v.split()[0]) for k, _, v in (l.partition(":") for l in lines) if k.startswith("Rss")}

        footprint.return_large_blocks()
        screening.warm_up()
        counts, calibration = phantom(300, 400)
        before, first = resident(), screening.screen(counts, calibration)
        footprint.hand_back_code()
        after, second = resident(), screening.screen(counts, calibration)
        assert first.regions.tobytes() == second.regions.tobytes() and np.array_equal(first.z, second.z)
        print(before["RssFile"] - after["RssFile"], after["RssAnon"] - before["RssAnon"])
    """
    if not footprint.SMAPS.is_file():
        pytest.skip("this system does not tell what is mapped")
    run = [sys.executable, "-c", textwrap.dedent(code)]
    freed_kb, more_kb = map(int, subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())
    assert freed_kb > 20_000
    assert more_kb < 20_000


def test_a_refusal_is_an_error_that_names_the_place(monkeypatch, tmp_path):
    smaps = tmp_path / "smaps"
    smaps.write_text("1-2 r-xp 00000000 fe:00 1234 /usr/lib/odd.so\nAnonymous: 0 kB\n")
    monkeypatch.setattr(footprint, "SMAPS", smaps)
    with pytest.raises(OSError, match="madvise of 1-2"):
        footprint.hand_back_code()
    monkeypatch.setattr(footprint, "SMAPS", tmp_path / "none")
    footprint.hand_back_code()


@pytest.mark.quiet
@pytest.mark.timeout(120)
def test_a_lane_takes_three_times_its_frame_and_160_mb_at_the_peak(tmp_path):
    if not footprint.SMAPS.is_file():
        pytest.skip("this system does not tell what is mapped")
    scan = _scan(2500, 2000)
    image = scan.radiograph
    source = tmp_path / "source"
    source.mkdir()
    lane = f"""
[[lane]]
name = "north"
[[lane.device]]
driver = "replay"
paths = ["{source}"]
speed = 0.0
expected = ["radiograph"]
"""
    config = write_config(tmp_path, lane)
    with daemon(config) as service:
        service.wait_for("lane_ready")  # kernels are in the cache from here on
        assert service.stop() == 0
    for second in range(3):
        scan_id = f"bench-20260105T06000{second}.000000Z-0000000{second}"
        start = scan.start_utc_ns + second * 60_000_000_000
        one = msgspec.structs.replace(scan, scan_id=scan_id, start_utc_ns=start, end_utc_ns=start + 1)
        recording.write(source / f"{scan_id}.scan.h5", one, codec="none")
    with daemon(config) as service:
        pid = service.wait_for("lane_ready")["pid"]
        for _ in range(3):
            service.wait_for("scan")
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        assert service.stop() == 0
    peak_kb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    assert peak_kb * 1024 <= 3 * sum(c.nbytes for c in image.counts) + 160e6
