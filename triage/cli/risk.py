"""`scanlane risk`: profiles of rules, tried before they go live, signed by two; every selection explained."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from .shared import EXIT_BAD_INPUT, emit, json_option, new_console, progress_bar

profile_argument = click.argument("profile")
store_option = click.option(
    "--profiles", "folder", type=click.Path(path_type=Path, file_okay=False),
    help="Folder in which signed profiles are kept; a profile may then be named by the beginning of its hash.",
)  # fmt: skip
keys_option = click.option(
    "--keys", type=click.Path(path_type=Path, file_okay=False),
    help="Folder of `scanlane keys`: who signed must be enrolled there and not revoked.",
)  # fmt: skip


@click.group()
def risk() -> None:
    """Score passages by a profile of rules over papers, history, portal and image.

    \b
    Begin with   scanlane risk example > north.toml       a small profile to change
                 scanlane risk check north.toml           what is wrong with it, rules that contradict each other
                 scanlane risk try north.toml STATE_DIR   what it would have done to everything that has passed
                 scanlane risk sign north.toml …          twice, by two people; then it may go live

    A profile is known by the hash of its bytes and never edited in place. A declaration that is missing or doubtful
    never lowers a score.
    """  # noqa: D301  (click wants the character itself)


@risk.command()
def example() -> None:
    """Print a small profile, to be changed."""
    from triage.analysis.risk import EXAMPLE

    click.echo(EXAMPLE, nl=False)


@risk.command()
@json_option
def facts(as_json: bool) -> None:
    """Show what a rule may ask of a passage."""
    from triage.analysis.risk_facts import FACTS

    for name, fact in FACTS.items():
        if as_json:
            emit({"fact": name, "kind": fact.kind, "words": fact.words, "from_papers": fact.papers})
        else:
            click.echo(f"{name:28} {fact.kind:10} {fact.words}{' [papers]' if fact.papers else ''}")


@risk.command()
@profile_argument
@store_option
@keys_option
@json_option
def check(profile: str, folder: Path | None, keys: Path | None, as_json: bool) -> None:
    """Check PROFILE (a file, or a hash with --profiles): form, rules, contradictions; who signed it; what expired.

    Exit code 2 with every problem named if it cannot be used. Rules that have expired, or soon will, are told; they are
    no error.
    """
    from triage.analysis import risk as rules
    from triage.service import risk_store

    read = risk_store.load(profile, folder)
    today = datetime.now(UTC).date()
    gone = rules.expired(read, today)
    soon = [r for r in read.rules if r not in gone and (r.valid_to - today).days < 30]
    signed = None if folder is None else risk_store.signatures(folder, read.sha256)
    missing = ["give --profiles to see who signed it"]
    if signed is not None:
        missing = risk_store.in_force(signed, *risk_store.enrolled_in(keys))
    told: dict[str, Any] = {
        "profile": read.identity, "sha256": read.sha256, "rules": len(read.rules), "joint": read.joint.method,
        "expired": [r.name for r in gone], "expire_soon": [r.name for r in soon],
        "signed_by": [s.name for s in signed.signed] if signed else [], "in_force": not missing,
        "missing": missing,
    }  # fmt: skip
    if as_json:
        emit(told)
        return
    click.echo(f"{read.identity}: {len(read.rules)} rules, none contradicts another; p-values by {read.joint.method}")
    click.echo(f"sha256 {read.sha256}")
    for rule in gone:
        click.echo(f"  expired {rule.valid_to}: {rule.name}, does not count")
    for rule in soon:
        click.echo(f"  expires {rule.valid_to}: {rule.name}")
    click.echo("in force" if not missing else f"not in force: {'; '.join(missing)}")


@risk.command("try")
@profile_argument
@click.argument("archive", metavar="STATE_DIR|URL")
@click.option(
    "--share", default=0.05, show_default=True, type=click.FloatRange(0.001, 1), help="Part that would be chosen."
)
@store_option
@json_option
def try_command(profile: str, archive: str, share: float, folder: Path | None, as_json: bool) -> None:
    """Simulate PROFILE against the history of an archive before it goes live; nothing is changed.

    The archive is the state_dir of a lane, or a site's database by its postgresql:// URL. Every passage is scored with
    what was known of it when it passed: earlier passages and finds of its container and consignor only.
    """
    from triage.service import risk_archive, risk_store, store

    read, place = risk_store.load(profile, folder), store.named(archive)
    with progress_bar(risk_archive.count(place), "scoring", quiet=as_json) as progress:
        told = risk_archive.tried(read, place, share, progress)
    if as_json:
        emit(told)
        return
    from rich.table import Table

    from triage.analysis.shares import words as interval

    console = new_console()
    simulated = f", {told['simulated']} of them simulated" if told["simulated"] else ""
    console.print(f"{told['profile']} on {told['passages']} passages{simulated}; not live")
    console.print(f"score: median {told['score']['p50']:g}, 95 % below {told['score']['p95']:g}, "
                  f"most {told['score']['p100']:g}")  # fmt: skip
    console.print(f"chosen: {told['chosen']} with at least {told['threshold']:g} points")
    for key, words in (
        ("hit_rate_chosen", "hits among decided that would be chosen"),
        ("hit_rate_rest", "hits among decided that would not"), ("hits_in_chosen", "hits that would be chosen"),
    ):  # fmt: skip
        console.print(f"  {words}: {interval(told[key])}")
    table = Table("rule", "owner", "points", "counted", "assumed", "hits of decided", box=None, header_style="bold")
    for name, one in told["rules"].items():
        table.add_row(name, one["owner"], f"{one['points']:+g}", str(one["counted"]), str(one["assumed"]),
                      interval(one["hit_rate"]))  # fmt: skip
    console.print(table)
    for one in told["expired"]:
        console.print(f"expired {one['valid_to']}: {one['rule']} ({one['owner']})", style="yellow", markup=False)
    for limit in told["limits"]:
        console.print(limit, style="dim")


@risk.command()
@click.argument("before")
@click.argument("after")
@store_option
@json_option
def diff(before: str, after: str, folder: Path | None, as_json: bool) -> None:
    """Say in words what changed from profile BEFORE to profile AFTER. Exit code 1 if anything did."""
    from triage.analysis import risk as rules
    from triage.service import risk_store

    old, new = risk_store.load(before, folder), risk_store.load(after, folder)
    found = rules.differences(old, new)
    if as_json:
        emit({"before": old.identity, "after": new.identity, "differences": found})
    else:
        for words in found or ["the same rules"]:
            click.echo(words)
    if found:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


@risk.command()
@click.argument("profile", type=click.Path(path_type=Path))
@click.option(
    "--profiles", "folder", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder in which it is kept under its hash.",
)  # fmt: skip
@click.option("--key", required=True, type=click.Path(path_type=Path), help="Your key file, see `scanlane keys`.")
@json_option
def sign(profile: Path, folder: Path, key: Path, as_json: bool) -> None:
    """Sign PROFILE with your Ed25519 key and keep it under its hash; a second person signs the same file.

    It is in force with two signatures, of two people and two keys. A changed file has another hash and no signature.
    """
    from scanner_io import security
    from triage.service import risk_store

    signed = risk_store.sign(profile, folder, security.load_identity(key))
    missing = risk_store.in_force(signed)
    names = [s.name for s in signed.signed]
    if as_json:
        emit({"sha256": signed.sha256, "signed_by": names, "in_force": not missing, "missing": missing})
        return
    click.echo(f"{signed.sha256} signed by {', '.join(names)}")
    click.echo("in force" if not missing else f"not in force: {'; '.join(missing)}")


@risk.command()
@click.argument("scan")
@click.option(
    "--archive", default=".", show_default=True, metavar="STATE_DIR|URL", help="The archive that the passage is in."
)
@store_option
@click.option(
    "--seed-file", type=click.Path(path_type=Path), help="The site's secret seed: then the draws are made again, too."
)
@json_option
def explain(scan: str, archive: str, folder: Path | None, seed_file: Path | None, as_json: bool) -> None:
    """Say why SCAN was selected, or not, and make every selection of it again from the archive.

    What was recorded with the selection is held against what comes out now: the facts of the passage, the score by the
    profile with the recorded hash (--profiles), the draws (--seed-file), the choice among all candidates of the run,
    and the audit. The score that a lane told with the scan is made again as well. Exit code 1 where anything differs,
    or where the archive has neither a selection nor a score of it.
    """
    from triage.service import selecting, store

    seed = None if seed_file is None else selecting.seed_in(seed_file)
    found = selecting.explain(store.named(archive), scan, folder, seed)
    lane = selecting.explain_lane_score(store.named(archive), scan, folder)
    told: list[dict[str, Any]] = [
        {
            "run": e.run.run, "stage": e.run.stage, "utc_ns": e.run.utc_ns, "profile": e.run.profile,
            "algorithm": e.run.algorithm, "chosen": e.kept.choice.chosen, "why": e.kept.choice.why,
            "score": e.kept.assessment.score, "contributions": [c.words for c in e.kept.assessment.contributions],
            "left_out": list(e.kept.assessment.left_out), "joint": e.kept.assessment.joint,
            "reproduced": not e.problems, "problems": e.problems, "checked": e.checked, "not_checked": e.not_checked,
        }
        for e in found
    ]  # fmt: skip
    nothing = "the archive has no selection of this passage: none was made or recorded with it, so none is made again"
    score = None
    if lane is not None:
        score = {
            "score": lane.finding.score, "reason": lane.finding.reason, "asked_for_review": lane.finding.tier != "note",
            "reproduced": not lane.problems, "problems": lane.problems, "checked": lane.checked,
            "not_checked": lane.not_checked,
        }  # fmt: skip
    if as_json:
        emit({"scan": scan, "selections": told, "lane_score": score, "note": "" if told else nothing})
    elif not told:
        click.echo(f"{scan}: {nothing}")
    if score is not None and not as_json:
        click.echo(f"in the lane: {score['reason']}")
        _tell_marks(score)
    for one in told if not as_json else ():
        word = "chosen" if one["chosen"] else "not chosen"
        click.echo(f"{one['stage']}: {word}; {one['why']}")
        click.echo(f"  score {one['score']:g} by {one['profile']}; {one['joint']}")
        for words in [*one["contributions"], *one["left_out"]]:
            click.echo(f"    {words}")
        _tell_marks(one)
    if not (told or score) or any(e.problems for e in found) or (lane is not None and lane.problems):
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def _tell_marks(one: dict[str, Any]) -> None:
    for mark, key in (("same", "checked"), ("DIFFERS", "problems"), ("not checked", "not_checked")):
        for words in one[key]:
            click.echo(f"  {mark}: {words}")
