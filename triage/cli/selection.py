"""`scanlane selection`: who is imaged, looked at and opened where there is not room for all."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import click

from .shared import analyst_option, emit, json_option, new_console, progress_bar

archive_argument = click.argument("archive", metavar="STATE_DIR|URL")
seed_file_option = click.option(
    "--seed-file", required=True, type=click.Path(path_type=Path),
    help="The site's secret seed, see `scanlane selection seed`.",
)  # fmt: skip


@click.group()
def selection() -> None:
    """Choose passages by risk and at random, as many as lanes, analysts and yard places have room for.

    \b
    Begin with   scanlane selection plan > plan.toml                 capacity and shares, each with its source
                 scanlane selection seed STATE_DIR --seed-file S     a secret seed; its commitment goes into the audit
                 scanlane selection run STATE_DIR --plan plan.toml --profile HASH … --seed-file S
                 scanlane risk explain SCAN                          the same selection made again from the archive
                 scanlane selection expected STATE_DIR …             of those declared in advance, who will be imaged

    Authorised traders are chosen less often and never never: a random share is the same for everybody.
    """  # noqa: D301  (click wants the character itself)


@selection.command()
def plan() -> None:
    """Print a plan to change: who is there in which hours, how long one takes, which shares are drawn."""
    from triage.analysis.selection import EXAMPLE

    click.echo(EXAMPLE, nl=False)


@selection.command()
@archive_argument
@seed_file_option
@analyst_option
@json_option
def seed(archive: str, seed_file: Path, analyst: str | None, as_json: bool) -> None:
    """Make a secret seed if there is none in the file, and write its commitment into the audit of an archive.

    Who has the seed can tell beforehand who will be drawn: keep it from all but who runs the selection. A passage that
    came before its seed was committed to can be explained, but not that the seed was not picked for it.
    """
    from scanner_io.client import default_analyst
    from scanner_io.storage import write_durable
    from triage.analysis.selection import SEED_BYTES
    from triage.service import selecting, store
    from triage.service.outbox import Outbox

    place = store.named(archive)
    if not seed_file.exists():
        write_durable(seed_file, secrets.token_bytes(SEED_BYTES).hex().encode() + b"\n", mode=0o600)
    value = selecting.seed_in(seed_file)
    outbox = Outbox(place)
    try:
        told = selecting.commit_seed(outbox, value, analyst or default_analyst())
    finally:
        outbox.close()
    if as_json:
        emit({"commitment": told, "seed_file": str(seed_file)})
    else:
        click.echo(f"commitment {told} is in the audit; the seed stays in {seed_file}")


@selection.command()
@archive_argument
@click.option("--plan", "plan_file", required=True, type=click.Path(path_type=Path), help="See `selection plan`.")
@click.option("--profile", required=True, help="Risk profile: hash of a signed one in --profiles, or a file.")
@click.option("--profiles", "folder", type=click.Path(path_type=Path, file_okay=False), help="Signed profiles.")
@click.option("--keys", type=click.Path(path_type=Path, file_okay=False), help="Folder of `scanlane keys`: who signs.")
@click.option(
    "--stage", type=click.Choice(["image", "look", "open"]), default="look", show_default=True,
    help="What is short: imaging lanes, analysts, or yard places.",
)  # fmt: skip
@click.option("--record", is_flag=True, help="Write it down and let the chosen wait for an analyst; else only tell.")
@seed_file_option
@analyst_option
@json_option
def run(
    archive: str, plan_file: Path, profile: str, folder: Path | None, keys: Path | None, stage: Any, record: bool,
    seed_file: Path, analyst: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Select among the passages of an archive that were no candidates of this stage yet.

    Without --record nothing is changed. With it the profile must be in force (two signatures), and passages that the
    machine called clear and the selection chose wait for an analyst. Exit code 0 also where nobody is chosen.
    """
    from scanner_io.client import default_analyst
    from scanner_io.errors import ConfigError
    from triage.analysis import selection as choosing
    from triage.service import risk_archive, risk_store, selecting, store
    from triage.service.outbox import Outbox

    rules, place = risk_store.load(profile, folder), store.named(archive)
    if record:
        _must_be_in_force(rules, folder, keys)
    chosen_plan, staff = selecting.plan_in(plan_file)
    span = risk_archive.span(place)
    if span is None:
        raise ConfigError([f"{archive}: no passage in it"])
    with progress_bar(risk_archive.count(place), "selecting", quiet=as_json) as progress:
        made, kept = selecting.select(
            place, stage, rules, chosen_plan, choosing.windows_of(staff, *span), selecting.seed_in(seed_file), progress
        )
    woken = 0
    if record and kept:
        outbox = Outbox(place)
        try:
            woken = selecting.record(outbox, made, kept, analyst or default_analyst())
        finally:
            outbox.close()
    _tell(made, kept, record, woken, as_json)


def _must_be_in_force(rules: Any, folder: Path | None, keys: Path | None) -> None:
    from scanner_io.errors import ConfigError
    from triage.service import risk_store

    if folder is None:
        raise click.UsageError("--record: give --profiles, the folder with the signatures")
    missing = risk_store.in_force(risk_store.signatures(folder, rules.sha256), *risk_store.enrolled_in(keys))
    if missing:
        raise ConfigError([f"{rules.identity} is not in force: {'; '.join(missing)}"])


@selection.command()
@click.argument("state_dir", type=click.Path(path_type=Path, file_okay=False))
@click.option("--plan", "plan_file", required=True, type=click.Path(path_type=Path), help="See `selection plan`.")
@click.option("--profile", required=True, help="Risk profile: hash of a signed one in --profiles, or a file.")
@click.option("--profiles", "folder", type=click.Path(path_type=Path, file_okay=False), help="Signed profiles.")
@click.option("--keys", type=click.Path(path_type=Path, file_okay=False), help="Folder of `scanlane keys`: who signs.")
@click.option("--days", default=30.0, show_default=True, type=click.FloatRange(0.01), help="Declared in the last days.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the list; the audit has its hash.")
@seed_file_option
@analyst_option
@json_option
def expected(
    state_dir: Path, plan_file: Path, profile: str, folder: Path | None, keys: Path | None, days: float,
    out: Path | None, seed_file: Path, analyst: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Choose who will be imaged, of the containers that were declared in advance, in what is left of this shift.

    By papers and history alone, as many as the shift's imaging lanes have room for, and the random share. With --out
    the profile must be in force; `selection check` makes the list again. A vehicle on no list has no declaration that
    came in advance: that is no reason to let it pass.
    """
    from scanner_io.client import default_analyst
    from scanner_io.storage import write_durable
    from triage.service import expecting, risk_store, selecting, store
    from triage.service.outbox import Outbox

    rules, place = risk_store.load(profile, folder), store.named(str(state_dir))
    if out is not None:
        _must_be_in_force(rules, folder, keys)
    plan_, staff = selecting.plan_in(plan_file)
    moment = expecting.now()
    known = expecting.declared(state_dir, days, moment)
    made = expecting.make(place, known, rules, plan_, staff, selecting.seed_in(seed_file), moment)
    if out is not None:
        write_durable(out, expecting.encoded(made))
        outbox = Outbox(place)
        try:
            expecting.record(outbox, made, analyst or default_analyst())
        finally:
            outbox.close()
    _tell(made.run, list(made.kept), out is not None, 0, as_json)


@selection.command()
@click.argument("listed", metavar="LIST", type=click.Path(path_type=Path, dir_okay=False))
@archive_argument
@click.option("--profiles", "folder", type=click.Path(path_type=Path, file_okay=False), help="Signed profiles.")
@click.option("--seed-file", type=click.Path(path_type=Path), help="The site's secret seed: the draws, too.")
@json_option
def check(listed: Path, archive: str, folder: Path | None, seed_file: Path | None, as_json: bool) -> None:
    """Make LIST of `selection expected` again, and hold it against the audit. Exit code 1 where anything differs."""
    from triage.service import expecting, selecting, store

    seed_ = None if seed_file is None else selecting.seed_in(seed_file)
    again = expecting.check(store.named(archive), listed, folder, seed_)
    if as_json:
        emit({"list": str(listed), "reproduced": not again.problems, **again._asdict()})
    else:
        for mark, lines in (("same", again.checked), ("DIFFERS", again.problems), ("not checked", again.not_checked)):
            for words in lines:
                click.echo(f"{mark}: {words}")
    if again.problems:
        raise click.exceptions.Exit(1)


def _tell(made: Any, kept: list[Any], record: bool, woken: int, as_json: bool) -> None:
    from triage.analysis import selection as choosing
    from triage.analysis.shares import words

    fair = choosing.fairness([k.candidate for k in kept], {k.choice.scan_id: k.choice for k in kept})
    chosen = [k for k in kept if k.choice.chosen]
    told = {
        "run": made.run, "stage": made.stage, "profile": made.profile, "seed_commitment": made.seed_commitment,
        "candidates": len(kept), "chosen": len(chosen), "random": sum(k.choice.random for k in kept),
        "by_risk": sum(k.choice.rank > 0 for k in kept), "must": sum(bool(k.candidate.must) for k in kept),
        "waits": sum(k.choice.waits for k in kept), "recorded": record and bool(kept), "woken": woken,
        "fairness": fair,
    }  # fmt: skip
    if as_json:
        told["choices"] = [{"scan": k.choice.scan_id, "chosen": k.choice.chosen, "why": k.choice.why} for k in kept]
        emit(told)
        return
    console = new_console()
    from rich.table import Table

    state = f"recorded as run {made.run}, {woken} wait for an analyst now" if told["recorded"] else "nothing recorded"
    console.print(
        f"{made.stage}: {told['chosen']} of {told['candidates']} chosen: {told['must']} must, {told['random']} drawn, "
        f"{told['by_risk']} by risk; {told['waits']} wait for room; {state}"
    )
    table = Table("", "", "chosen", "by risk alone", "", box=None, header_style="bold")
    for trait, values in fair["traits"].items():
        for value, one in values.items():
            note = "differs from all" if one["differs"] else ""
            table.add_row(trait, value, words(one["chosen"]), words(one["by_risk"]), note)
    console.print(table)
