"""`scanlane batch`: an archive judged anew, whatever ends in between."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from scanner_io import recording, security
from scanner_io.errors import DataError, LinkLost, StorageError
from tests import samples
from triage.analysis.risk import EXAMPLE
from triage.service import risk_store
from triage.service.lane import Judge, lane_profile
from triage.study import batch, batch_cluster
from triage.study.batch import Answer, Plan, Row, plan_of, run_batch
from triage.study.batch_ledger import Ledger

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is in the extra `batch`")
Security = pytest.importorskip("distributed", reason="distributed is in the extra `batch`").Security


class Here:
    """Does the tasks in this process, the last first. killers : parts of names that end the worker."""

    count = 1

    def __init__(self, killers=(), neighbours=()):
        self.killers, self.neighbours, self.calls = killers, neighbours, []

    def __call__(self, work, plan, tasks):
        tasks = list(tasks)
        for number, path in reversed(tasks):
            self.calls.append(Path(path).name)
            beside = len(tasks) > 1 and any(name in path for name in self.neighbours)
            if beside or any(name in path for name in self.killers):
                yield Answer(number=number, row=None, words="its worker ended")
            else:
                yield Answer(number=number, row=work(plan, path))


@pytest.fixture(autouse=True)
def no_desk_is_left():
    yield
    batch.leave_desk()


@pytest.fixture(scope="module")
def judge():
    judge = Judge(lane_profile(None), threads=1)
    judge.warm_up()
    yield judge
    judge.close()


@pytest.fixture
def archive(tmp_path, judge):
    """Three recordings with the result of the live path, one without, one cut off."""
    folder = tmp_path / "archive"
    for number in range(4):
        scan = samples.scan(scan_id=f"lane1-20260105T06000{number}.000000Z-0000000{number}")
        (folder / f"sub{number % 2}").mkdir(parents=True, exist_ok=True)
        path = folder / f"sub{number % 2}" / f"{number}.scan.h5"
        recording.write(path, scan, result=judge(scan) if number else None, codec="none")
    whole = (folder / "sub0/0.scan.h5").read_bytes()
    (folder / "cut.scan.h5").write_bytes(whole[: len(whole) // 2])
    return folder


def rows(out):
    return pq.read_table(out / "scans.parquet").to_pylist()


def told(archive, out, workers=None, **how):
    return run_batch([archive], out, plan_of(None, None, None), workers or Here(), **how)


def test_every_recording_gets_the_row_that_the_live_path_would_give(archive, tmp_path, judge):
    before = {p: p.read_bytes() for p in archive.rglob("*") if p.is_file()}
    report = told(archive, tmp_path / "out")
    assert (report["scans"], report["bad"], report["poison"], report["differ_from_stored"]) == (4, 1, 0, 0)
    found = rows(tmp_path / "out")
    assert [Path(r["file"]).name for r in found] == ["cut.scan.h5", "0.scan.h5", "2.scan.h5", "1.scan.h5", "3.scan.h5"]
    assert [r["same_as_stored"] for r in found] == [None, None, True, True, True]
    cut = found[0]
    assert (cut["state"], cut["outcome"], cut["load"]) == ("bad", "UNUSABLE", None) and str(archive) in cut["error"]
    with Ledger(tmp_path / "out/ledger.sqlite") as ledger:
        kept = {r.scan_id: r for page in ledger.rows() for r in map(msgspec.json.Decoder(Row).decode, page)}
    for number in range(4):
        scan = samples.scan(scan_id=f"lane1-20260105T06000{number}.000000Z-0000000{number}")
        live = judge(scan)
        assert kept[scan.scan_id].result.judgement() == live.judgement()
        row = next(r for r in found if r["scan_id"] == scan.scan_id)
        assert (row["outcome"], row["reasons"]) == (live.outcome, list(live.reasons))
        assert row["findings"] == len(live.findings)
    findings = pq.read_table(tmp_path / "out/findings.parquet").to_pylist()
    assert report["findings"] == len(findings) == sum(r["findings"] for r in found)
    assert before == {p: p.read_bytes() for p in archive.rglob("*") if p.is_file()}


def test_a_lane_behind_a_link_is_found_and_a_link_that_leads_back_ends(tmp_path):
    (tmp_path / "elsewhere" / "20260101").mkdir(parents=True)
    (tmp_path / "elsewhere" / "20260101" / "a.scan.h5").touch()
    (tmp_path / "archive" / "south").mkdir(parents=True)
    (tmp_path / "archive" / "south" / "b.scan.h5").touch()
    (tmp_path / "archive" / "north").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "archive" / "south" / "loop").symlink_to(tmp_path / "archive")
    found = [Path(entry.path).name for entry in batch.recordings_in([tmp_path / "archive"])]
    assert sorted(found) == ["a.scan.h5", "b.scan.h5"]


def test_a_folder_that_several_links_lead_to_is_gone_through_once_under_its_own_path(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.scan.h5").touch()
    (tmp_path / "archive").mkdir()
    for name in ("north", "south"):
        (tmp_path / "archive" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "archive" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "archive" / "itself").symlink_to(tmp_path / "archive" / "itself")
    for archives in ([tmp_path / "archive"], [tmp_path / "archive", tmp_path / "elsewhere"]):
        found = [Path(entry.path) for entry in batch.recordings_in(archives)]
        assert found == [(tmp_path / "elsewhere" / "a.scan.h5").resolve()]


def test_what_is_done_is_not_done_again_but_what_changed_is(archive, tmp_path):
    out = tmp_path / "out"
    told(archive, out)
    first = [{k: v for k, v in r.items() if k not in ("seconds", "worker")} for r in rows(out)]
    workers = Here()
    assert told(archive, out, workers)["judged_now"] == 0 and not workers.calls
    assert [{k: v for k, v in r.items() if k not in ("seconds", "worker")} for r in rows(out)] == first
    changed = archive / "sub0/0.scan.h5"
    shutil.copyfile(archive / "sub1/1.scan.h5", archive / "cut.scan.h5")
    changed.touch()
    assert told(archive, out, workers)["bad"] == 0
    assert sorted(workers.calls) == ["0.scan.h5", "cut.scan.h5"]


def test_a_stopped_run_goes_on_where_it_was(archive, tmp_path):
    class Stopped(Here):
        def __call__(self, work, plan, tasks):
            for count, answer in enumerate(super().__call__(work, plan, tasks)):
                if count == 2:
                    raise KeyboardInterrupt
                yield answer

    with pytest.raises(KeyboardInterrupt):
        told(archive, tmp_path / "out", Stopped())
    workers = Here()
    report = told(archive, tmp_path / "out", workers)
    assert (report["judged_now"], len(workers.calls), report["scans"]) == (3, 3, 4)


def test_a_file_that_ends_its_worker_is_set_aside_and_its_neighbours_are_judged(archive, tmp_path):
    out = tmp_path / "out"
    workers = Here(killers=["sub1/1"], neighbours=["sub0/2"])
    report = told(archive, out, workers)
    assert (report["scans"], report["poison"], report["bad"]) == (3, 1, 1)
    (poison,) = (r for r in rows(out) if r["state"] == "poison")
    assert poison["outcome"] == "UNUSABLE" and poison["file"].endswith("sub1/1.scan.h5") and "twice" in poison["error"]
    assert told(archive, out)["judged_now"] == 0
    assert told(archive, out, retry=True)["judged_now"] == 2
    assert {r["state"] for r in rows(out)} == {"sound", "bad"}


def test_other_code_or_another_profile_needs_a_word(archive, tmp_path):
    told(archive, tmp_path / "out")
    later = msgspec.structs.replace(plan_of(None, None, None), version="99.0")
    with pytest.raises(DataError, match="other code or another profile"):
        run_batch([archive], tmp_path / "out", later, Here())
    with pytest.raises(batch.WrongWorkerError, match=r"not 99\.0"):
        run_batch([archive], tmp_path / "out", later, Here(), again=True)
    assert told(archive, tmp_path / "out", again=True)["judged_now"] == 5


def test_a_lane_that_no_profile_is_known_for_is_not_judged_by_another(archive, tmp_path):
    own = plan_of(None, None, None)
    named = Plan(lanes={"elsewhere": own.other}, other=None)
    report = run_batch([archive], tmp_path / "out", named, Here())
    assert (report["scans"], report["bad"]) == (0, 5)
    assert any("is of lane 'north', which is not among elsewhere" in r["error"] for r in rows(tmp_path / "out"))
    assert named.key != own.key


def test_a_lanes_risk_profile_scores_its_scans_anew(archive, tmp_path):
    (tmp_path / "risk.toml").write_text(EXAMPLE)
    for who in ("ana", "bo"):
        sha256 = risk_store.sign(tmp_path / "risk.toml", tmp_path / "profiles", security.generate(who)).sha256
    lanes = tmp_path / "lane.toml"
    lanes.write_text(
        f'state_dir = "s"\n[[lane]]\nname = "north"\nrisk = "profiles/{sha256}.toml"\n'
        '[[lane.device]]\ndriver = "simulated"\n'
    )
    plan = plan_of(None, None, lanes)
    own = plan_of(None, None, None, tmp_path / "risk.toml")
    assert plan.lanes["north"].identity == own.other.identity != plan_of(None, None, None).other.identity
    report = run_batch([archive / "sub0"], tmp_path / "out", plan, Here())
    findings = pq.read_table(tmp_path / "out/findings.parquet").to_pylist()
    scored = [f for f in findings if f["kind"] == "risk"]
    assert report["scans"] == len(scored) == 2 and f"risk 0 by north gate@{sha256[:12]}" in scored[0]["reason"]


def test_a_folder_is_one_batchs_at_a_time(archive, tmp_path):
    (tmp_path / "out").mkdir()
    with Ledger(tmp_path / "out/ledger.sqlite"), pytest.raises(StorageError, match="another batch"):
        told(archive, tmp_path / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no recording"):
        told(tmp_path / "none", tmp_path / "out")


def test_an_open_scheduler_elsewhere_is_refused():
    with pytest.raises(Exception, match="--tls-ca"):
        batch_cluster.Cluster("tcp://192.0.2.1:8786", 1)


ENDED = """
import os
from triage.study import batch_cluster

def work(plan, path):
    if "killer" in path:
        os._exit(9)
    return f"{plan.decode()} {path}".encode()

if __name__ == "__main__":
    with batch_cluster.Cluster(None, 2) as cluster:
        assert cluster.count == 2
        tasks = [(n, "killer" if n == 5 else f"file{n}") for n in range(20)]
        for answer in cluster(work, b"plan", iter(tasks)):
            print(answer.number, "ended" if answer.row is None else answer.row.decode())
"""


@pytest.mark.timeout(180)
def test_workers_of_this_machine_and_one_that_is_ended():
    done = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True)
    answers = {int(number): words for number, _, words in (line.partition(" ") for line in done.stdout.splitlines())}
    assert sorted(answers) == list(range(20)), done.stderr[-2000:]
    assert answers[5] == "ended"
    assert all(words in ("ended", f"plan file{n}") for n, words in answers.items())
    assert sum(words == "ended" for words in answers.values()) <= 1 + batch_cluster.AHEAD


class Ending:
    """Does the tasks in this process; these end their worker: always, or when they are not alone."""

    count = 1

    def __init__(self, always=(), beside=()):
        self.always, self.beside = always, beside

    def __call__(self, work, plan, tasks):
        tasks = list(tasks)
        for number, call in reversed(tasks):
            ends = call[0] in self.always or (len(tasks) > 1 and call[0] in self.beside)
            yield Answer(number=number, row=None if ends else work(plan, call), words="killed")


def test_a_cluster_maps_in_order_and_takes_up_again_what_ended_with_another():
    words = [f"w{n}" for n in range(6)]
    mapped = batch_cluster.ClusterMap(Ending(beside=("w1", "w5"))).map(str.upper, words)
    assert list(mapped) == [w.upper() for w in words]
    with pytest.raises(DataError, match="w3: ends the process that works on it"):
        list(batch_cluster.ClusterMap(Ending(always=("w3",))).map(str.upper, words))


BEHIND_TLS = """
import sys, time
from pathlib import Path
from scanner_io.errors import LinkLost
from triage.study import batch_cluster

if __name__ == "__main__":
    address, ours, others = sys.argv[1], *(tuple(map(Path, part.split())) for part in sys.argv[2:])
    until = time.monotonic() + 60
    while True:
        try:
            cluster = batch_cluster.Cluster(address, 0, tls=ours)
            break
        except LinkLost:
            assert time.monotonic() < until
    with cluster:
        print(*batch_cluster.ClusterMap(cluster).map(str.upper, ["a", "b", "c"]))
    try:
        batch_cluster.Cluster(address, 0, tls=others)
    except LinkLost as error:
        print(error)
"""


@pytest.mark.timeout(180)
def test_a_scheduler_behind_tls_takes_nobody_without_its_certificates(tmp_path):
    files = [certificates(tmp_path / name) for name in ("ours", "others")]
    port = free_port()
    address = f"tls://127.0.0.1:{port}"
    tls = [word for option, file in zip(("ca-file", "cert", "key"), files[0], strict=True)
           for word in (f"--tls-{option}", str(file))]  # fmt: skip
    of_scheduler = ("scheduler", "--protocol", "tls", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    of_worker = ("worker", address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "60")
    with dask(*of_scheduler, *tls), dask(*of_worker, *tls):
        done = subprocess.run(
            [sys.executable, "-c", BEHIND_TLS, address, *(" ".join(map(str, part)) for part in files)],
            capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    mapped, refused = done.stdout.splitlines()
    assert mapped == "A B C" and refused.startswith(f"scheduler {address}: does not answer")


def certificates(folder):
    """Make an authority, a certificate and a key; return their files."""
    folder.mkdir()
    made = Security.temporary().get_tls_config_for_role("client")
    files = tuple(folder / name for name in ("ca.pem", "me.pem", "me.key"))
    for file, part in zip(files, ("ca_file", "cert", "key"), strict=True):
        file.write_text(made[part])
    return files


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def dask(*arguments):
    """A process of Dask's own command, ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.soak
@pytest.mark.timeout(180)
@pytest.mark.filterwarnings("default")
def test_a_scheduler_that_is_killed_and_started_again_loses_nothing():
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    of_scheduler = ("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    of_worker = ("worker", address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "60")

    def work(plan, path):
        import time

        time.sleep(0.05)
        return path.encode()

    with dask(*of_worker), ExitStack() as later, dask(*of_scheduler) as scheduler:
        answers = []
        with _cluster(address) as cluster:
            for answer in cluster(work, b"", ((n, f"file{n}") for n in range(200))):
                answers.append(answer)
                if len(answers) == 50:
                    os.kill(scheduler.pid, signal.SIGKILL)
                    scheduler.wait()
                    later.enter_context(dask(*of_scheduler))
                    later.enter_context(dask(*of_worker))
    assert sorted(a.number for a in answers) == list(range(200)) and all(a.row for a in answers)


def _cluster(address, **how):
    until = time.monotonic() + 30
    while True:
        try:
            return batch_cluster.Cluster(address, 0, **how)
        except LinkLost:
            if time.monotonic() > until:
                raise
