"""The list of parts, the lock it is held against, and signatures of wheels."""

import json

import pytest
from click.testing import CliRunner

from scanner_io import security
from scanner_io.errors import DataError
from triage.cli import cli
from triage.operate import parts, release

HASH = "0" * 64


@pytest.fixture(scope="module")
def found():
    return parts.installed()


def test_every_part_and_what_it_needs_is_listed(found):
    assert {"numpy", "numba", "llvmlite", "pyzmq", "cryptography", "cffi", "click"} <= set(found)
    assert "pytest" not in found, "what only tests need is no part"
    assert "llvmlite" in found["numba"].needs
    for part in found.values():
        assert set(part.needs) <= set(found), part
        assert part.version and part.name == part.name.lower()


def test_without_optional_parts_there_are_fewer(found):
    bare = parts.installed(extras=())
    assert set(bare) < set(found)
    assert "starlette" in found and "starlette" not in bare


def test_the_list_is_cyclonedx_and_always_the_same(found):
    made = parts.sbom(found)
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.5")
    assert made == parts.sbom(parts.installed())
    references = [c["bom-ref"] for c in made["components"]]
    assert len(set(references)) == len(references) == len(found) - 1
    known = {*references, made["metadata"]["component"]["bom-ref"]}
    assert {d["ref"] for d in made["dependencies"]} == known
    assert {r for d in made["dependencies"] for r in d["dependsOn"]} <= known
    other = found | {"numpy": found["numpy"]._replace(version="0.1")}
    assert parts.sbom(other)["serialNumber"] != made["serialNumber"]


def test_the_lock_names_what_the_list_names(found):
    lock = parts.locked()
    assert len(lock) > 30
    assert parts.unlocked(found, lock) == [], "write the lock anew: see parts.py"


def test_a_lock_of_another_scanlane_is_told(found):
    same = {n: p for n, p in found.items() if n != parts.ITSELF}
    assert parts.unlocked(found, same) == []
    less = {n: p for n, p in same.items() if n not in ("numpy", "llvmlite")}
    assert set(parts.unlocked(found, less)) == {"numpy", "llvmlite"}
    old = less | {"scipy": same["scipy"]._replace(version="0.1")}
    assert parts.unlocked(found, old) == ["numpy"], "a newer part may need others, scanlane itself does not change"


def test_every_difference_from_the_lock_is_told(found):
    same = {n: p for n, p in found.items() if n != parts.ITSELF}
    assert parts.difference(found, same) == ((), (), ())
    less = {n: p for n, p in same.items() if n != "numpy"}
    assert parts.difference(found, less).not_locked == ("numpy",)
    assert parts.difference(found, same | {"more": parts.Part("more", "1")}).not_installed == ("more",)
    old = same | {"numpy": same["numpy"]._replace(version="0.1")}
    assert parts.difference(found, old).other_version == (f"numpy {same['numpy'].version} instead of 0.1",)


@pytest.mark.parametrize(
    "line", ["numpy", "numpy==1", "numpy>=1 --hash=sha256:" + HASH, "numpy==1 --hash=md5:" + HASH, "-e ."]
)
def test_a_lock_without_a_hash_is_none(line):
    with pytest.raises(DataError, match="line 2"):
        parts.locked("# head\n" + line + "\n")


def test_a_lock_is_made_of_a_report_and_read_again(tmp_path):
    def one(name, **info):
        return {"metadata": {"name": name, "version": "1.2"}, "download_info": info}

    report = tmp_path / "report.json"
    hashed = {"archive_info": {"hashes": {"sha256": HASH}}}
    report.write_text(json.dumps({"install": [one("B_b", **hashed), one("scanlane"), one("a", **hashed)]}))
    text = parts.lock_of(report)
    assert parts.locked(text) == {"a": parts.Part("a", "1.2", HASH), "b-b": parts.Part("b-b", "1.2", HASH)}
    report.write_text(json.dumps({"install": [one("a")]}))
    with pytest.raises(DataError, match="hash of every part"):
        parts.lock_of(report)


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "scanlane-0.1.0-py3-none-any.whl"
    path.write_bytes(b"a wheel" * 1000)
    return path


def test_a_signed_wheel_is_accepted_and_a_changed_one_is_not(wheel):
    us = security.generate("release")
    place = release.sign(wheel, us)
    assert release.verify(wheel, us.public).signer == "release"
    with pytest.raises(DataError, match="not by the key of other"):
        release.verify(wheel, security.generate("other").public)
    wheel.write_bytes(b"a whee1" * 1000)
    with pytest.raises(DataError, match="another file"):
        release.verify(wheel, us.public)
    place.unlink()
    with pytest.raises(DataError, match="no signature"):
        release.verify(wheel, us.public)


def test_a_signature_is_of_one_name(wheel):
    us = security.generate("release")
    place = release.sign(wheel, us)
    older = wheel.with_name("scanlane-0.2.0-py3-none-any.whl")
    older.write_bytes(wheel.read_bytes())
    older.with_name(older.name + release.SUFFIX).write_bytes(place.read_bytes())
    with pytest.raises(DataError, match="another file"):
        release.verify(older, us.public)


def test_the_commands(wheel, tmp_path):
    run = CliRunner()
    us = security.generate("release")
    security.save_identity(tmp_path / "release.key", us)
    security.save_public(tmp_path / "release.pub", us.public)
    assert run.invoke(cli, ["release", "sign", str(wheel), "--key", str(tmp_path / "release.key")]).exit_code == 0
    done = run.invoke(cli, ["release", "verify", str(wheel), "--public", str(tmp_path / "release.pub"), "--json"])
    assert json.loads(done.output)["signer"] == "release"
    assert json.loads(run.invoke(cli, ["release", "sbom"]).output)["bomFormat"] == "CycloneDX"
    out = tmp_path / "parts.cdx.json"
    run.invoke(cli, ["release", "sbom", "--out", str(out)])
    assert json.loads(out.read_text())["components"]
