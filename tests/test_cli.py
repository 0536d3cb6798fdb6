"""The command line on what people and scripts really give it."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from scanner_io.client import Workstation
from tests.service.daemon_rig import ENVIRONMENT, ROOT
from tests.service.test_dispatch import Service
from triage.cli.shared import make_log
from triage.study.dual_energy import in_words

FIELDS = {
    "file", "passage", "kind", "outcome", "load", "container", "findings", "gamma_alarm", "neutron_alarm",
    "gamma_intervals", "alarm_intervals", "quality", "error", "timings_ms", "start_utc", "number",
}  # fmt: skip


def scanlane(*words):
    return subprocess.run(
        [sys.executable, "-m", "triage.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
    )


def rows(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def bad_files(folder):
    """Write files that must never read as clear; return their paths."""
    rng = np.random.default_rng(0)
    good = rng.integers(200, 255, (64, 64)).astype(np.uint8)
    good[16:48, 16:48] //= 4
    png = cv2.imencode(".png", good)[1].tobytes()
    huge = bytearray(png)
    huge[16:24] = (20_000).to_bytes(4, "big") + (15_000).to_bytes(4, "big")
    contents = {
        "truncated.png": png[: len(png) // 2],
        "empty.png": b"",
        "text.png": b"this is a text\n" * 40,
        "one.png": cv2.imencode(".png", np.full((1, 1), 9, np.uint8))[1].tobytes(),
        "black.png": cv2.imencode(".png", np.zeros((300, 600), np.uint8))[1].tobytes(),
        "saturated.png": cv2.imencode(".png", np.full((300, 600), 255, np.uint8))[1].tobytes(),
        "noise.png": cv2.imencode(".png", rng.integers(0, 255, (300, 600)).astype(np.uint8))[1].tobytes(),
        "megapixels.png": bytes(huge),
        "truncated.jpg": cv2.imencode(".jpg", good)[1].tobytes()[:-200],
        "zeros.tif": bytes(4000),
        "recording.scan.h5": b"\x89HDF\r\n\x1a\n" + bytes(200),
        "letters.csv": b"GB,000379,00O371,000407,000371,2016-05-31 09:30:00.974 -07\r\n" * 3,
    }
    paths = []
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        paths.append(folder / name)
    return paths


@pytest.mark.timeout(120)
def test_bad_files_are_reported_never_clear_and_the_rest_goes_on(tmp_path):
    paths = bad_files(tmp_path)
    done = scanlane("triage", "--json", *paths, tmp_path / "absent.png")
    assert done.returncode == 1
    assert done.stderr == ""
    got = {Path(r["file"]).name: r for r in rows(done)}
    for path in [*paths, tmp_path / "absent.png"]:
        if path.name == "letters.csv":
            continue  # no occupancy, no line
        assert got[path.name]["outcome"] != "CLEAR", path.name
        assert set(got[path.name]) >= FIELDS
    for name in ("truncated.png", "empty.png", "text.png", "megapixels.png", "absent.png", "recording.scan.h5"):
        assert got[name]["error"], name
        assert name in got[name]["error"]


@pytest.mark.timeout(120)
def test_real_scans_are_judged(tmp_path, shared_data):
    # every tenth, and the empty ones: the judgement itself is shown all of them elsewhere
    every = sorted((shared_data / "cargo").glob("*.jpg"))
    files = [path for number, path in enumerate(every) if number < 4 or number % 10 == 3]
    done = scanlane("triage", "--json", "--save", tmp_path / "pictures", *files)
    assert done.returncode == 0, done.stdout[-500:]
    got = {Path(r["file"]).name: r for r in rows(done)}
    assert len(every) == 33 and got.keys() == {path.name for path in files}
    loads = {name: r["load"] for name, r in got.items() if name.startswith("container_")}
    assert {name for name, load in loads.items() if load == "empty"} == {"container_0000_0.jpg", "container_0000_1.jpg"}
    trucks = [name for name in got if name.startswith("truck_")]
    assert trucks and all(got[name]["container"] for name in trucks)
    assert len(list((tmp_path / "pictures").glob("*.png"))) == len(files)


@pytest.mark.timeout(120)
def test_portal_logs_give_one_row_per_occupancy(shared_data):
    done = scanlane("triage", "--json", *sorted((shared_data / "portal").glob("*.csv")))
    assert done.returncode == 0
    got = rows(done)
    alarms = [sum(bool(r["gamma_alarm"]) for r in got if name in r["file"]) for name in ("S2-C0", "S2-C3")]
    assert (len(got), alarms) == (50, [0, 25])
    assert {r["kind"] for r in got} == {"portal"}
    assert [r["number"] for r in got] == [*range(17, 42), *range(109, 134)]
    assert all(r["start_utc"].startswith("2016-0") for r in got)
    words = " ".join(scanlane("triage", shared_data / "portal" / "S2-C3-NORM2.csv").stdout.split())
    assert "109 22:05:00" in words, "which passage it was"


@pytest.mark.timeout(120)
def test_the_truth_about_simulated_vehicles_stands_in_its_own_file_alone(tmp_path):
    truth = tmp_path / "truth.json"
    words = ("--out", tmp_path, "--vehicles", 2, "--columns", 300, "--channels", 128, "--cargo", "cartons",
             "--threats", 1, "--threat-kinds", "brick_stack", "--truth", truth, "--energies", 1)  # fmt: skip
    assert scanlane("simulate", *words).returncode == 0
    told = json.loads(truth.read_text())
    assert told["simulated"]
    found = {p.name: p for p in tmp_path.rglob("*.scan.h5")}
    assert [v["file"] for v in told["vehicles"]] == sorted(found)
    for vehicle in told["vehicles"]:
        assert (vehicle["cargo"], vehicle["threat"]) == ("cartons", "brick_stack")
        box = vehicle["threat_box"]
        assert 0 <= box["first_column"] < box["end_column"] <= 300
        assert 0 <= box["first_channel"] < box["end_channel"] <= 128
        assert len(vehicle["threat_transmission"]) == 1
        # What is judged and kept does not know it: the configuration names what may come, nothing what came.
        contents = found[vehicle["file"]].read_bytes()
        assert b"threat_box" not in contents
        assert b"threat_transmission" not in contents
    done = scanlane("simulate", "--out", tmp_path, "--cargo", "gold")
    assert done.returncode == 2
    assert "unknown kinds gold, expected some of empty, cartons" in done.stderr


@pytest.mark.timeout(120)
def test_the_same_seed_gives_the_same_counts_and_replays_bit_for_bit(tmp_path):
    hashes = []
    for name in ("one", "two"):
        words = ("--out", tmp_path / name, "--vehicles", 3, "--seed", 9, "--columns", 500, "--channels", 192)
        assert scanlane("simulate", *words).returncode == 0
        from scanner_io import recording

        found = sorted((tmp_path / name).rglob("*.scan.h5"))
        hashes.append([(p.name, recording.read(p).pixels_hash) for p in found])
        assert all(recording.read(p).scan.simulated for p in found)
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 3
    done = scanlane("replay", "--verify", "--json", tmp_path / "one")
    assert done.returncode == 0
    assert [r["same"] for r in rows(done)] == [True] * 3
    told = rows(scanlane("verify", "--json", tmp_path / "one"))
    assert [(r["sound"], r["structure_covered"]) for r in told] == [(True, True)] * 3
    with h5py.File(found[0], "r+") as file:  # as it was written before recordings had a seal
        del file.attrs["seal"]
    assert "its structure is not covered" in " ".join(scanlane("verify", found[0]).stdout.split())


def test_usage_and_configuration_errors_exit_2(tmp_path):
    assert scanlane("triage").returncode == 2
    assert scanlane("nonsense").returncode == 2
    config = tmp_path / "lane.toml"
    config.write_text('state_dir = 4\n[[lane]]\nname = "A B"\n[[lane.device]]\ndriver = "none_such"\n')
    for command in ("run", "check"):
        done = scanlane(command, config)
        assert done.returncode == 2
        told = done.stdout + done.stderr
        assert all(word in told for word in ("state_dir", "lane[0].name", "none_such"))
        assert "Traceback" not in told


def test_help_shows_where_to_begin_a_line_each():
    lines = [" ".join(line.split()) for line in scanlane("--help").stdout.splitlines()]
    assert (
        "Begin with scanlane demo" in lines
        and "Judge files scanlane triage scan.jpg portal.csv recording.scan.h5" in lines
    )


def test_drivers_are_listed():
    done = scanlane("drivers", "list", "--json")
    assert done.returncode == 0
    assert {r["name"] for r in rows(done)} >= {"simulated", "replay", "file_drop", "rpm_rapiscan"}


@pytest.mark.timeout(120)
def test_watch_and_decide(tmp_path):
    from tests.service.daemon_rig import Process
    from tests.service.test_dispatch import Service

    service = Service(tmp_path, lease_s=10.0)
    try:
        scan_id = service.put()
        with Process("-m", "triage.cli", "watch", "--connect", service.address, "--analyst", "ana", "--json") as watch:
            offer = watch.wait_for("offer")
            assert offer["scan_id"] == scan_id
            other = scanlane("decide", scan_id, "clear", "--connect", service.address, "--analyst", "eve")
            assert other.returncode == 1
            assert "leased by ana" in other.stderr
            words = ("--connect", service.address, "--analyst", "ana", "--note", "x", "--json")
            done = scanlane("decide", scan_id, "inspect", *words)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["applied"]
        assert service.state(scan_id) == "decided"
        assert scanlane("decide", "no-such", "clear", "--connect", service.address).returncode == 1
    finally:
        service.close()


def test_check_reports_what_is_wrong_on_this_machine(tmp_path):
    config = tmp_path / "lane.toml"
    config.write_text(
        'state_dir = "state"\n[dispatch]\nbind = "tcp://127.0.0.1:*"\n[[lane]]\nname = "n"\n'
        '[[lane.device]]\ndriver = "rpm_rapiscan"\naddress = "tcp://127.0.0.1:9"\n'
        f'[[lane.device]]\ndriver = "file_drop"\npath = "{tmp_path}/absent"\n'
    )
    done = scanlane("check", config, "--json", "--timeout", "0.2")
    assert done.returncode == 2
    notes = json.loads(done.stdout)["notes"]
    assert [n for n in notes if n.startswith("sandbox for foreign files: ")]
    told = json.loads(done.stdout)["problems"]
    assert len(told) == 2
    assert "cannot connect" in told[0]
    assert "absent" in told[1]


ENERGY = """
low = {endpoint_mv = 4.0, air_sd = 0.008}
high = {endpoint_mv = 10.0, air_sd = 0.007}
[[zone]]
point = [
    {material = "C", areal_density_g_cm2 = 155.2, alpha_low = 6.696, alpha_high = 4.347},
    {material = "steel", areal_density_g_cm2 = 155.2, alpha_low = 6.738, alpha_high = 5.263},
    {material = "Pb", areal_density_g_cm2 = 155.2, alpha_low = 7.567, alpha_high = 7.036},
]
"""


def test_check_fits_a_lanes_energy_calibration(tmp_path):
    config, energy = tmp_path / "lane.toml", tmp_path / "energy.toml"
    config.write_text(
        'state_dir = "state"\n[storage]\nmin_free_mb = 0\n[dispatch]\nbind = "tcp://127.0.0.1:*"\n[[lane]]\n'
        'name = "n"\nenergy_calibration = "energy.toml"\n[[lane.device]]\ndriver = "simulated"\nvehicles = 1\n'
    )
    energy.write_text(ENERGY)
    told = json.loads(scanlane("check", config, "--json").stdout)
    assert told["problems"] == []
    assert any("energy calibration of 1 zones fits, error of the model 2.0%" in note for note in told["notes"])
    energy.write_text(ENERGY.replace("alpha_high = 7.036", "alpha_high = 5.3"))
    done = scanlane("check", config, "--json")
    (problem,) = json.loads(done.stdout)["problems"]
    assert done.returncode == 2
    assert "the wedges contradict their materials" in problem
    assert str(energy) in problem
    done = scanlane("run", config, "--once")
    assert done.returncode == 2
    assert "the wedges contradict their materials" in done.stderr


@pytest.mark.timeout(180)
def test_recordings_are_judged_with_the_energy_calibration_of_their_lane(tmp_path):
    from drivers import simulated
    from scanner_io import energy_calibration

    energy = tmp_path / "energy.toml"
    energy.write_text(energy_calibration.to_toml(simulated.energy_calibration(simulated.Config())))
    done = scanlane("simulate", "--out", tmp_path, "--vehicles", "1", "--columns", "400", "--channels", "192")
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.rglob("*.scan.h5")
    pictures = tmp_path / "pictures"
    (row,) = rows(scanlane("triage", "--json", "--energy", energy, "--save", pictures, file))
    assert [f["kind"] for f in row["findings"]].count("mass") == 1
    assert (pictures / f"{file.name}.material.png").stat().st_size > 1000
    (plain,) = rows(scanlane("triage", "--json", file))
    assert "mass" not in [f["kind"] for f in plain["findings"]]
    assert scanlane("triage", "--json", "--energy", tmp_path / "absent.toml", file).returncode == 2


@pytest.mark.timeout(180)
def test_evaluate_dual_energy_prints_one_object_and_writes_maps(tmp_path):
    done = scanlane("evaluate", "dual-energy", "--json", "--out", tmp_path, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    (report,) = rows(done)
    assert report["speed"]["two_threads_ms"] > 0
    written = {p.name for p in tmp_path.iterdir()}
    assert {"simulated.energy.toml", "simulated_6_9MV.png"} <= written
    if report["scene"] is not None:
        assert "scene_9_6MV.png" in written
        assert report["classes"]["10/4MV"]["right_percent"] >= 95
    assert any("ms on two threads" in line for line in in_words(report))


class FullDisk:
    """A stream whose disk is full until it is told otherwise."""

    full = True

    def __init__(self):
        self.text = ""

    def write(self, text):
        if self.full:
            raise OSError(28, "No space left on device")
        self.text += text

    def flush(self):
        pass


def test_a_log_that_cannot_be_written_does_not_end_the_service(monkeypatch):
    stream = FullDisk()
    monkeypatch.setattr(sys, "stdout", stream)
    log = make_log(as_json=True)
    log("one")
    log("two")
    stream.full = False
    log("three")
    log("four")
    events = [json.loads(line) for line in stream.text.splitlines()]
    assert [e["event"] for e in events] == ["log_lost", "three", "four"]
    assert events[0]["text"].startswith("2 lines")


def read_until(stream, words):
    said = ""
    while words not in said:
        character = stream.read(1)
        assert character, said
        said += character
    return said


@pytest.mark.timeout(120)
def test_watch_tells_that_a_scan_is_no_longer_yours(tmp_path):
    service = Service(tmp_path)
    ours, theirs = pty.openpty()
    watch = None
    try:
        scan_id = service.put()
        watch = subprocess.Popen(
            [sys.executable, "-m", "triage.cli", "watch", "--connect", service.address, "--analyst", "ana"],
            stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, cwd=ROOT,
        )  # fmt: skip
        read_until(watch.stdout, "then Enter >")
        with Workstation(service.address, "ana", capacity=0) as second:
            assert second.decide(second.claim(scan_id), "clear").applied
        said = read_until(watch.stdout, "no longer yours: decided: clear")
        assert scan_id in said
        watch.send_signal(signal.SIGINT)
        rest, _ = watch.communicate(timeout=30)
        assert watch.returncode == 0, rest
    finally:
        if watch is not None and watch.poll() is None:
            watch.kill()
            watch.communicate()
        os.close(ours)
        os.close(theirs)
        service.close()


@pytest.mark.timeout(120)
def test_what_cannot_be_waited_for_or_written_is_an_error_in_words(tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    odd = tmp_path / os.fsdecode(b"odd\xff.png")
    odd.write_bytes(b"no image")
    done = scanlane("triage", "--json", pipe, odd, "/dev/zero")
    assert done.returncode == 1
    errors = [r["error"] for r in rows(done)]
    assert len(errors) == 3 and "no plain file" in errors[0] and "no plain file" in errors[2]
    assert done.stdout.isascii()
    done = scanlane("verify", "--json", pipe)
    assert (done.returncode, "no plain file" in done.stdout) == (1, True)
    (tmp_path / "file").write_text("")
    for words in (["simulate", "--out", tmp_path / "file" / "x", "--vehicles", 1],):
        done = scanlane(*words)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    for speed in ("-1", "nan"):
        assert scanlane("replay", "--speed", speed, tmp_path / "x.scan.h5").returncode == 2


@pytest.mark.timeout(120)
def test_damaged_portal_lines_outside_passages_are_told(tmp_path):
    path = tmp_path / "day.csv"
    stamp = "2016-05-31 09:30:{:02d}.000 -07\n".format
    path.write_text("".join(f"GB,000379,00O371,000407,000371,{stamp(s)}" for s in range(30)))
    (row,) = rows(scanlane("triage", "--json", path))
    assert row["outcome"] == "UNUSABLE" and "may hide a passage" in row["error"]


def test_n42_files_of_portals_are_judged_and_others_refused(shared_data):
    folder = shared_data / "n42"
    names = ("Annex_D", "Annex_D_alarmed", "Annex_E", "Annex_C", "hostile_not_well_formed")
    done = scanlane("triage", "--json", *(folder / f"{name}.n42" for name in names))
    assert done.returncode == 1
    plain, alarmed, spectroscopic, handheld, hostile = rows(done)
    assert [r["kind"] for r in (plain, alarmed, spectroscopic)] == ["portal"] * 3
    assert (plain["outcome"], plain["gamma_alarm"], plain["gamma_intervals"]) == ("REVIEW", False, 7)
    assert (alarmed["outcome"], alarmed["gamma_alarm"], alarmed["neutron_alarm"]) == ("ALARM", True, True)
    assert (spectroscopic["outcome"], spectroscopic["alarm_intervals"]) == ("ALARM", 2)
    assert any("Cs-137" in q for q in spectroscopic["quality"])
    for row in (handheld, hostile):
        assert (row["kind"], row["outcome"]) == ("n42", "UNUSABLE")
        assert "no portal passage" in row["error"]
    assert "it tells alarms: Isotope; counts could not be read: line 546" in hostile["error"]


def test_a_damaged_n42_file_is_judged_and_reported(shared_data, tmp_path):
    sound = (shared_data / "n42" / "Annex_D.n42").read_bytes()
    path = tmp_path / "damaged.n42"
    path.write_bytes(sound.replace(b"<CountData>5 22 200<", b"<CountData>5 2\x00 200<", 1))
    done = scanlane("triage", "--json", path)
    passage, file = rows(done)
    assert done.returncode == 1
    assert passage["outcome"] == "REVIEW"
    assert any("portal_file_damaged" in q for q in passage["quality"])
    assert "may hide a passage" in file["error"]
    refused = scanlane("triage", "--json", "--speed-unit", "parsec", path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "N42 speed_unit 'parsec', expected one of m/s" in refused.stderr
    path.write_bytes(b"<?xml version='1.0'?><html/>")
    (row,) = rows(scanlane("triage", "--json", path))
    assert "no RadInstrumentData or N42InstrumentData element" in row["error"]


def test_the_portal_part_of_a_recording_is_exported_as_n42(tmp_path):
    scanlane("simulate", "--out", tmp_path, "--vehicles", 1, "--columns", 64, "--channels", 64, "--json")
    (stored,) = tmp_path.rglob("*.scan.h5")
    out = tmp_path / "passage.n42"
    assert scanlane("export", stored, "--n42", out).returncode == 0
    assert "SIMULATED" in out.read_text()
    (row,) = rows(scanlane("triage", "--json", out))
    assert (row["kind"], row["simulated"]) == ("portal", True)
    again = scanlane("export", stored, "--n42", out)
    assert (again.returncode, "exists already; give --replace" in again.stderr) == (1, True)
    assert scanlane("export", stored, "--n42", out, "--replace").returncode == 0
    assert scanlane("export", out, "--n42", out).returncode == 1


@pytest.mark.parametrize("command", ["triage", "replay", "verify"])
def test_a_folder_without_recordings_is_an_error_and_not_all_good(tmp_path, command):
    (tmp_path / "image.jpg").write_bytes(b"")
    done = scanlane(command, str(tmp_path))
    assert done.returncode == 1
    assert f"{tmp_path}: no recording (*.scan.h5)" in done.stderr and "Traceback" not in done.stderr


def test_foreign_text_cannot_move_the_terminals_cursor():
    from rich.table import Table
    from rich.text import Text

    from triage.cli.shared import new_console

    console = new_console()
    table = Table("good")
    table.add_row(Text("\x1b]0;owned\x07\x1b[2J\u202egnp\x9b31m"))
    with console.capture() as capture:
        console.print(table)
        console.print("a\x1b[2Jb", markup=False)
    assert not set(capture.get()) & set("\x1b\x07\x9b\u202e")
