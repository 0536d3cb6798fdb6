"""Texts and vendored files of the page."""

import hashlib
import json
import re

from scanner_io import decision_codes
from triage.analysis.kinds import KINDS
from triage.analysis.portal import KINDS as PORTAL_KINDS
from triage.analysis.risk_facts import RISK_KIND
from triage.analysis.unlike import TEXTURE_UNKNOWN
from triage.console.web import STATIC

SCRIPTS = [p for p in STATIC.rglob("*.js") if "vendor" not in p.relative_to(STATIC).parts]
ANALYSIS = STATIC.parents[1] / "analysis"
TEXTS = {p.stem: json.loads(p.read_text()) for p in (STATIC / "i18n").glob("*.json")}


def test_every_language_says_everything():
    english = TEXTS["en"]
    for language, texts in TEXTS.items():
        assert sorted(texts) == sorted(english), language
        for key, text in texts.items():
            assert text, key
            assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", english[key])), (language, key)


def test_every_text_that_is_asked_for_is_there():
    asked = {key for p in SCRIPTS for key in re.findall(r"\bt\('([a-z_]+\.[^'$]+)'", p.read_text())}
    assert len(asked) > 100
    assert asked <= set(TEXTS["en"])
    assert {f"code.{n}" for n in decision_codes.CODES} <= set(TEXTS["en"])
    assert {f"view.renderer.{name}" for name in ("webgl2", "canvas", "png")} <= set(TEXTS["en"])


def test_every_kind_of_finding_has_a_name():
    told = {kind for p in ANALYSIS.rglob("*.py") for kind in re.findall(r"Finding\(\s*kind=\"(\w+)\"", p.read_text())}
    assert len(told) > 10
    kinds = {*told, *KINDS, *PORTAL_KINDS.values(), TEXTURE_UNKNOWN, RISK_KIND, "gamma_point", "gamma_distributed"}
    assert {f"finding.{kind}" for kind in kinds} <= set(TEXTS["en"])


def test_vendored_files_are_what_was_fetched():
    sums = (STATIC / "vendor" / "SHA256SUMS").read_text().splitlines()
    told = {name: digest for digest, name in (line.split("  ") for line in sums)}
    assert set(told) == {p.name for p in (STATIC / "vendor").iterdir()} - {"SHA256SUMS"}
    for name, digest in told.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest, name


def test_nothing_is_loaded_from_elsewhere():
    for path in [*SCRIPTS, *STATIC.glob("*.html"), *STATIC.rglob("*.css")]:
        text = path.read_text()
        assert not re.search(r"(src|href|url|import|fetch)\W{1,3}https?:", text), path
        assert " style=" not in text, f"{path}: a style attribute, which the page's policy refuses"
