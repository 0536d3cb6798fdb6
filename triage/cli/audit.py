"""`scanlane audit`: whether the record of what happened was touched."""

from __future__ import annotations

import json
from pathlib import Path

import click

from scanner_io import security

from .shared import MISLEADING


@click.group()
def audit() -> None:
    """What happened to every scan, and who did it."""


@audit.command()
@click.argument("state_dir", metavar="STATE_DIR|URL")
@click.option("--checkpoints", type=click.Path(path_type=Path), help="The file that audit.checkpoints names.")
@click.option(
    "--service", type=click.Path(path_type=Path),
    help="service.pub: verifies signatures, and for which service decisions were signed. Default: that in --keys.",
)  # fmt: skip
@click.option(
    "--keys", type=click.Path(path_type=Path), help="Folder of `scanlane keys`: verifies the signatures of decisions."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts instead of words.")
def verify(
    state_dir: str, checkpoints: Path | None, service: Path | None, keys: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Find whether an event was changed, deleted, put in or moved, or the end of the audit cut off.

    Decisions and opinions are held against what the audit says of them; with --keys each one against its analyst's
    signature too, and against the service that it was signed for. Where a policy erased a note, nothing signed is left.

    STATE_DIR is the folder of a lane; a site's database is named by its postgresql:// URL, without a password.

    Exit code 1 if anything is wrong. Without --checkpoints a cut-off end cannot be seen; without --service nobody
    says that the checkpoints are the service's own.
    """
    from triage.service import audit as chain
    from triage.service import store

    if service is None and keys is not None and (keys / security.SERVICE_PUBLIC).exists():
        service = keys / security.SERVICE_PUBLIC
    public = None if service is None else security.load_public(service)
    signing = None if public is None else public.signing
    signers = None
    if keys is not None:
        signers = {e.key.name: e.key.signing for e in security.load_enrolled(keys / security.ENROLLED).enrolled}
    curve = None if public is None else public.curve
    found = chain.verify(store.named(state_dir), checkpoints, signing, signers, curve)
    if as_json:
        report = {
            "events": found.rows, "checkpoints": found.checkpoints, "signatures_verified": not found.unsigned,
            "decisions": found.decisions, "decisions_verified": signers is not None,
            "decisions_naming_no_service": found.nameless,
            "opinions": found.opinions, "opinions_unsigned": found.unsigned_opinions, "notes_erased": found.erased,
            "sound": not found.problems, "problems": [{"seq": p.seq, "text": p.text} for p in found.problems],
        }  # fmt: skip
        click.echo(json.dumps(report))
    else:
        for problem in found.problems:
            click.echo(MISLEADING.sub("�", f"event {problem.seq}: {problem.text}"))  # whoever changed it wrote it
        limits = [] if checkpoints is not None else ["without checkpoints a cut-off end cannot be seen"]
        limits += ["signatures were not verified"] if found.unsigned and checkpoints is not None else []
        if signers is not None and found.nameless:
            limits.append(f"{found.nameless} decisions do not say for which service they were signed")
        if signers is not None and found.unsigned_opinions:
            limits.append(f"{found.unsigned_opinions} opinions are not signed")
        if found.erased:
            limits.append(f"{found.erased} notes were erased by policy, with what was signed")
        state = f"{len(found.problems)} problems" if found.problems else "whole"
        click.echo(
            "; ".join(
                [
                    f"{found.rows} events, {found.checkpoints} checkpoints, {found.decisions} decisions, "
                    f"{found.opinions} opinions: {state}",
                    *limits,
                ]
            )
        )
    if found.problems:
        raise click.exceptions.Exit(1)
