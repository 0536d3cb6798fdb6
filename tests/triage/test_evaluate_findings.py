"""The study of specific findings: simulated threats are found at their place, and clean vehicles have none."""

from triage.analysis.kinds import KINDS
from triage.study import evaluate_findings as study
from triage.study.evaluate_findings import evaluate_findings, rows, steps

CASES = (("false_wall", "false_wall"), ("void", "void"))


def test_report_on_a_few_vehicles(monkeypatch):
    monkeypatch.setattr(study, "CASES", CASES)
    counted = []
    report = evaluate_findings(clean=2, threats=1, seed=3, progress=lambda: counted.append(1))
    assert len(counted) == steps(2, 1) == 4
    assert report["simulated"]
    assert set(report["kinds"]) == set(KINDS)
    assert [(c["kind"], c["threat"]) for c in report["threats"]] == list(CASES)
    for case in report["threats"]:
        assert 0 <= case["named"]["low"] <= case["named"]["value"] <= case["named"]["high"] <= 1
        assert case["any"]["value"] >= case["named"]["value"]
    head, *lines = rows(report)
    assert len(lines) == len(CASES)
    assert {len(line) for line in lines} == {len(head)}
