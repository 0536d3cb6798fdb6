"""Archives with passages and decisions, and the command line, for tests of risk, selection, quality and reports."""

from click.testing import CliRunner

from scanner_io.model import Decision
from tests import samples
from triage.cli import cli
from triage.service.outbox import ScanRow


def said(*words, code=0):
    done = CliRunner().invoke(cli, [str(w) for w in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        if code == "raises":
            return done.exception
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def scan_id(number):
    return f"north-20260131T09{number // 60:02d}{number % 60:02d}.000000Z-0f3a9c1e"


def put(outbox, number, verdict="", codes=(), declaration=None, start_utc_ns=None, whole=None, **changes):
    """Put a passage into an archive, decided at once where it has a verdict."""
    name = scan_id(number)
    values = {
        "scan_id": name, "lane": "north", "path": f"/r/{name}", "sha256": "ab" * 32, "size": 100,
        "start_utc_ns": start_utc_ns or samples.START_NS + number * 10**9, "simulated": True,
        "result": whole or samples.result(name, **changes),
        "declaration": declaration,
    }  # fmt: skip
    outbox.add(ScanRow(**values))
    if verdict:
        item = outbox.lease(name, "ana", 60)
        outbox.decide(
            Decision(
                decision_id=f"d{number}", scan_id=name, sha256="ab" * 32, analyst="ana", verdict=verdict,
                decided_utc_ns=1, codes=codes, lease_id=item.lease_id,
            )
        )  # fmt: skip
    return name
