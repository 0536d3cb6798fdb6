"""Everything that the README shows is run."""

import json
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scanner_io import config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(name):
    match = re.search(rf"<!-- (?:example|command): {name} -->\n```\w+\n(.*?)```", README, re.S)
    assert match, f"README has no block {name!r}"
    return match[1].strip()


def scanlane(*words, cwd):
    return subprocess.run(
        [sys.executable, "-m", "triage.cli", *words], cwd=cwd, capture_output=True, text=True,
        env={**__import__("os").environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_the_two_commands_are_one_line_each():
    for name in ("demo", "test"):
        assert "\n" not in block(name)
        assert block(name).startswith("python3 -m venv .venv && ")
    assert block("demo").endswith("scanlane demo")


@pytest.mark.timeout(180)
def test_the_file_examples(tmp_path):
    for line in block("files").splitlines():
        words = shlex.split(line)
        done = scanlane(*words[1:], cwd=tmp_path)
        assert words[0] == "scanlane"
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3


def test_the_examples_of_keys(tmp_path):
    for line in block("keys").splitlines():
        done = scanlane(*shlex.split(line)[1:], cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert "ana is revoked (analyst" in done.stdout


def test_the_policy_example():
    from tests.service.risk_rig import said

    told = json.loads(said(*shlex.split(block("policy"))[1:]))
    assert set(told["policies"]) == {"A", "B 5%", "B 10%", "B 27%", "C"}


def test_the_risk_example(tmp_path, monkeypatch):
    from scanner_io import security
    from tests import samples
    from tests.service.risk_rig import put, said
    from triage.service.outbox import Outbox

    (tmp_path / "state").mkdir()
    outbox = Outbox(tmp_path / "state" / "outbox.sqlite")
    for number in range(20):
        put(outbox, number, declaration=samples.declaration() if number % 4 else None, outcome="CLEAR")
    outbox.close()
    for who in ("ana", "bo"):
        security.save_identity(tmp_path / f"{who}.key", security.generate(who))
    monkeypatch.chdir(tmp_path)
    told = []
    for line in block("risk").splitlines():
        command, _, into = line.partition(" > ")
        words = [str(next(Path().glob(w))) if "*" in w else w for w in shlex.split(command)[1:]]
        told.append(said(*words))  # in this process: a start of each takes longer than all of them
        if into:
            Path(into).write_text(told[-1])
    assert "in force" in told[3] and "of 20 chosen" in told[6] and "wait for an analyst now" in told[6]
    assert "too few decided passages" in told[7]


def test_the_configuration_example():
    loaded = config.parse(block("config"), "README", base=ROOT)
    assert [d.driver for d in loaded.lane[0].device] == ["file_drop", "rpm_rapiscan"]


def test_the_example_of_a_site(tmp_path):
    secret = tmp_path / "outbox.password"
    secret.write_text("x")
    secret.chmod(0o600)
    loaded = config.parse(block("config") + "\n" + block("outbox"), "README", base=tmp_path)
    assert loaded.outbox.hub == "north"
    assert loaded.outbox.password_file == str(secret)


def test_the_selection_example_is_valid(tmp_path):
    text = block("selection")
    for name in re.findall(r'"(.*?)"', text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    loaded = config.parse(block("config") + "\n" + text, "README", base=tmp_path)
    assert loaded.selection.plan == str(tmp_path / "plan.toml")


def test_the_example_of_declarations_in_advance(tmp_path):
    loaded = config.parse(block("config") + "\n" + block("cargo"), "README", base=tmp_path)
    assert loaded.lane[0].device[-1].driver == "cargo_feed" and loaded.cargo.wrong_join == 0.001


def test_every_command_named_exists(tmp_path):
    for name in sorted(set(re.findall(r"`scanlane ([a-z]+(?: (?:list|triage))?)", README))):
        assert scanlane(*name.split(), "--help", cwd=tmp_path).returncode == 0, name


def test_the_python_example(tmp_path):
    from tests.service.test_dispatch import Service

    service = Service(tmp_path)
    try:
        scan_id = service.put()
        code = block("python").replace("tcp://127.0.0.1:7410", service.address)
        done = []
        worker = threading.Thread(target=lambda: (exec(code, {}), done.append(True)))
        worker.start()
        worker.join(30)
        assert done
        assert service.state(scan_id) == "decided"
    finally:
        service.close()


def test_the_pictures_are_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures
    assert all((ROOT / picture).stat().st_size < 300_000 for picture in pictures)


def test_the_energy_calibration_example(tmp_path):
    """It is carbon, iron and lead at 10/4 MV as Geant4 has them, so it fits as well."""
    from scanner_io import energy_calibration
    from triage.analysis.transparency import fit_zones

    path = tmp_path / "north.energy.toml"
    path.write_text(block("energy"))
    (model,) = fit_zones(energy_calibration.load(path))
    assert model.low.model_error == model.high.model_error == 0.02
