"""`scanlane retention`: delete recordings by the site's policy, or say which would go."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import click

from scanner_io.errors import StorageError

from .shared import analyst_option, emit, json_option


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--apply", "do", is_flag=True, help="Delete. Without it only what would go is told.")
@click.option("--hold", metavar="SCAN", help="Put a scan under a legal hold: its recording stays; needs --why.")
@click.option("--release", metavar="SCAN", help="End a legal hold; needs --why.")
@click.option("--why", default="", help="The reason of a hold or its end, for the audit.")
@analyst_option
@json_option
def retention(
    config: Path, do: bool, hold: str | None, release: str | None, why: str, analyst: str | None, as_json: bool
) -> None:  # fmt: skip
    """Delete recordings that were delivered, decided and kept for as long as [retention] in CONFIG says.

    The row of a scan, its decisions and audit stay; result and declaration too, unless retention.result_days says for
    how long, and the notes of decisions, opinions and second readings, unless retention.said_days does. What is
    undecided, held, under a legal hold or not as it was recorded is never deleted. Every deletion is in the audit
    before it happens. May be run beside a daemon, for instance once a night.
    """
    from scanner_io import config as configuration
    from scanner_io.client import default_analyst
    from triage.service import retention as keeping
    from triage.service.outbox import Outbox
    from triage.service.store import place_of

    loaded = configuration.load(config.resolve())  # recordings are known by their paths
    who = analyst or default_analyst()
    if (hold or release) and not why.strip():
        raise click.UsageError("--why: a reason is needed, for the audit")
    place = place_of(loaded)
    if isinstance(place, Path) and not place.is_file():
        raise click.UsageError(f"{place}: no daemon of this configuration has run yet")
    outbox = Outbox(place)
    try:
        if hold:
            keeping.hold(outbox, hold, who, why)
        if release:
            keeping.end_hold(outbox, release, who, why)
        if hold or release:
            do = False
        now_ns = time.time_ns()
        found = keeping.candidates(outbox, loaded.retention, now_ns)
        gone = 0
        failed: dict[str, str] = {}
        for one in found:
            try:
                deleted = do and keeping.delete(outbox, one, Path(loaded.state_dir) / "recordings", who)
            except StorageError as error:  # one that cannot go must not keep the others
                deleted, failed[one.scan_id] = False, str(error)
            gone += deleted
            told = {
                "scan": one.scan_id, "kind": one.kind, "age_days": round(one.age_days(now_ns), 2),
                "keep_days": one.keep_days, "bytes": one.size, "path": one.path, "deleted": deleted,
                "problem": failed.get(one.scan_id, ""),
            }  # fmt: skip
            if as_json:
                emit(told)
            else:
                kept = f"not deleted: {failed.get(one.scan_id, 'it changed meanwhile')}"
                state = "deleted" if deleted else "would go" if not do else kept
                click.echo(f"{one.scan_id}  {one.kind:8} {told['age_days']:8.1f} days old  {state}")
        erased: dict[str, list[bool]] = {}
        for what, list_, erase in (
            ("result", keeping.erasable, keeping.erase), ("said", keeping.said, keeping.erase_said),
        ):  # fmt: skip
            erased[what] = []
            for more in list_(outbox, loaded.retention, time.time_ns() if do else now_ns):
                went = do and erase(outbox, more, who)
                erased[what].append(went)
                age = round(more.age_days(now_ns), 2)
                if as_json:
                    emit({"scan": more.scan_id, "kind": what, "age_days": age, "keep_days": more.keep_days,
                        "bytes": more.size, "path": "", "deleted": went})  # fmt: skip
                else:
                    state = "erased" if went else "would be erased"
                    click.echo(f"{more.scan_id}  {what:8} {age:8.1f} days old  {state}")
        held = keeping.holds(outbox)
    finally:
        outbox.close()
    size = sum(one.size for one in found)
    if as_json:
        kinds = Counter(one.kind for one in found)
        emit({
            "found": len(found), "deleted": gone, "failed": len(failed), "bytes": size, "kinds": dict(kinds),
            "results_found": len(erased["result"]), "results_erased": sum(erased["result"]),
            "said_found": len(erased["said"]), "said_erased": sum(erased["said"]),
            "legal_holds": [h.scan_id for h in held],
        })  # fmt: skip
        sys.exit(bool(failed))
    for one_held in held:
        click.echo(f"{one_held.scan_id}  under a legal hold by {one_held.who}: {one_held.why}")
    verb = f"{gone} of {len(found)} deleted" if do else f"{len(found)} would go, --apply deletes them"
    more_words = ""
    for what, days, words in (
        ("result", loaded.retention.result_days, "results"),
        ("said", loaded.retention.said_days, "scans' notes and opinions"),
    ):
        if days is not None:
            count = sum(erased[what]) if do else len(erased[what])
            more_words += f"; {count} {words} {'erased' if do else 'would be erased'}"
    click.echo(f"{verb} ({size / (1 << 20):.0f} MiB){more_words}; {len(held)} legal holds")
    if failed:
        raise StorageError(f"{len(failed)} recordings could not be deleted, the first: {next(iter(failed.values()))}")
