"""`scanlane exchange`: scans for another administration, verified there without a connection."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .shared import emit, json_option, key_option, new_console, progress_bar

if TYPE_CHECKING:
    from scanner_io.exchange import Opened
    from triage.service.exchanging import Told

trust_option = click.option(
    "--trust", "trust_file", required=True, type=click.Path(path_type=Path, dir_okay=False),
    help="Your trust list, see `scanlane exchange trust`.",
)  # fmt: skip
ledger_option = click.option(
    "--ledger", type=click.Path(path_type=Path, dir_okay=False),
    help="List of what was opened here. Default: beside the trust list, NAME.accepted.json.",
)  # fmt: skip
package_argument = click.argument("package", type=click.Path(path_type=Path, dir_okay=False))


@click.group()
def exchange() -> None:
    """Hand scans to another administration, and take theirs: signed, verified offline, parties left out by policy.

    \b
    Sender     scanlane exchange policy > policy.toml
               scanlane exchange pack SCAN… --archive STATE_DIR --policy policy.toml --key me.key --to NORTH --out F
    Receiver   scanlane exchange trust trust.json --me NORTH --add sender.pub
               scanlane exchange verify F --trust trust.json
               scanlane exchange open F --trust trust.json --out FOLDER
               scanlane exchange recognise F SCAN --archive STATE_DIR --trust trust.json …

    Every byte of a package is signed or hashed. A revoked key, a package for somebody else and one that was opened
    before are refused.
    """  # noqa: D301  (click wants the character itself)


@exchange.command()
def policy() -> None:
    """Print a policy to change: which fields of a declaration go out, parties, people, recordings or pictures."""
    from triage.service.exchanging import EXAMPLE

    click.echo(EXAMPLE, nl=False)


@exchange.command()
@click.argument("scans", nargs=-1, required=True)
@click.option("--archive", default=".", show_default=True, metavar="STATE_DIR|URL", help="Where the scans are.")
@click.option("--policy", "policy_file", required=True, type=click.Path(path_type=Path), help="What goes out.")
@click.option("--to", "recipient", required=True, help="Name of the receiving administration, as it calls itself.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write, NAME.exchange.")
@key_option
@json_option
def pack(
    scans: tuple[str, ...], archive: str, policy_file: Path, recipient: str, out: Path, key: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Write a package with SCANS, signed with your administration's key; it is noted in the audit of each scan.

    The key is a key file of `scanlane keys`, such as the service.key of `keys init`; its .pub file goes to whoever
    shall accept your packages, by a way that nobody can exchange it on. The sender's name is the name in the key.
    """
    from scanner_io import security
    from scanner_io.foreign import ForeignFiles
    from scanner_io.storage import write_durable
    from triage.service import exchanging, store
    from triage.service.outbox import Outbox

    if key is None:
        raise click.UsageError("--key: a package is signed; give your administration's key file")
    rules, identity = exchanging.policy_in(policy_file), security.load_identity(key)
    outbox = Outbox(store.named(archive))
    try:
        with ForeignFiles() as readers, progress_bar(len(scans), "packing", quiet=as_json) as progress:
            data = exchanging.pack(outbox, scans, rules, identity, recipient, readers, progress)
    finally:
        outbox.close()
    write_durable(out, data)
    if as_json:
        emit({"file": str(out), "bytes": len(data), "scans": list(scans), "sender": identity.name, "to": recipient})
    else:
        click.echo(f"{out}: {len(scans)} scans, {len(data)} bytes, from {identity.name} for {recipient}")


@exchange.command()
@package_argument
@trust_option
@ledger_option
@json_option
def verify(package: Path, trust_file: Path, ledger: Path | None, as_json: bool) -> None:
    """Verify PACKAGE without opening it: signature, trust, recipient, time, every byte, replay, and its recordings.

    Exit code 1 with the reason where it is refused.
    """
    opened, told = _verified(package, trust_file, ledger)
    _tell(package, opened, told, None, as_json)


@exchange.command("open")
@package_argument
@trust_option
@ledger_option
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write into.")
@json_option
def open_command(package: Path, trust_file: Path, ledger: Path | None, out: Path, as_json: bool) -> None:
    """Verify PACKAGE, write its files into a folder, and note that it was opened: a second time it is refused."""
    from scanner_io import exchange as packages
    from scanner_io.storage import make_folder, write_durable

    opened, told = _verified(package, trust_file, ledger)
    taken = [name for name in opened.files if (out / name).exists()]
    if taken:
        raise click.UsageError(f"{out / taken[0]} is there already; give an empty folder")
    make_folder(out)
    # the files first: a disk that is full must not use the package up
    written: list[Path] = []
    try:
        for name, data in opened.files.items():
            write_durable(out / name, data)
            written.append(out / name)
        packages.accept(_ledger(trust_file, ledger), opened.header, time.time_ns())
    except BaseException:
        for path in written:
            path.unlink()
        raise
    _tell(package, opened, told, out, as_json)


@exchange.command()
@package_argument
@click.argument("scan")
@click.option("--archive", default=".", show_default=True, metavar="STATE_DIR|URL", help="Where SCAN is.")
@trust_option
@click.option("--score", type=float, help="Risk score here; without it nothing is recognised.")
@click.option("--most-risk", default=20.0, show_default=True, help="Score from which on you look yourselves.")
@click.option("--most-days", default=30.0, show_default=True, help="Days after which a scan is old.")
@click.option("--image-needed", is_flag=True, help="Only where an image was made here, too, and shows the same.")
@json_option
def recognise(
    package: Path, scan: str, archive: str, trust_file: Path, score: float | None, most_risk: float, most_days: float,
    image_needed: bool, as_json: bool,
) -> None:  # fmt: skip
    """Say whether a scan in PACKAGE stands for an image of passage SCAN here, and what is against it.

    Against it: another answer than clear, another container number or seal, a changed image, an alarm of the portal, a
    risk of your own, and whatever is not known. Where SCAN has an image, it is held against the received one: the same
    counts are the same image; images of other scanners or formats must agree by a correlation of 0.5 once they are
    registered, with nothing that stands out. Exit code 0 where it is recognised, 1 where it is not.
    """
    from scanner_io.foreign import ForeignFiles
    from triage.analysis import recognised
    from triage.service import exchanging, store
    from triage.service.outbox import Outbox

    opened, told = _verified(package, trust_file, None, replays=False)
    outbox = Outbox(store.named(archive))
    try:
        item = outbox.item(scan)
    finally:
        outbox.close()
    with ForeignFiles() as readers:
        answers = [
            recognised.recognised(
                exchanging.received(t, opened.header.sender), exchanging.here_of(item, t, opened, score, readers),
                most_risk=most_risk, most_days=most_days, image_needed=image_needed,
            )
            for t in told
        ]  # fmt: skip
    # of several scans the one that stands for this passage, else the one with least against it
    best = min(answers, key=lambda a: len(a.against))
    if as_json:
        emit({"scan": scan, "recognised": best.recognised, "against": list(best.against), "image": best.image,
              "words": best.words})  # fmt: skip
    else:
        click.echo(best.words)
    if not best.recognised:
        raise click.exceptions.Exit(1)


@exchange.command()
@click.argument("trust_file", metavar="TRUST", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--me", help="Name of this administration: makes a new list.")
@click.option("--add", type=click.Path(path_type=Path), help="A sender's .pub file, which came by a safe way.")
@click.option("--revoke", metavar="NAME", help="Accept nothing more of this sender's key; needs --why.")
@click.option("--why", default="", help="Reason of a revocation.")
@json_option
def trust(
    trust_file: Path, me: str | None, add: Path | None, revoke: str | None, why: str, as_json: bool
) -> None:  # fmt: skip
    """Make and change the list of senders whose packages are accepted; without options, show it."""
    from scanner_io import exchange as packages
    from scanner_io import security

    if me is not None:
        if trust_file.exists():
            raise click.UsageError(f"{trust_file} is there already; it says who this administration is")
        packages.save(trust_file, packages.TrustList(me=security.checked_name(me)))
    listed = packages.load_trust(trust_file)
    if add is not None:
        listed = packages.trusting(listed, security.load_public(add), time.time_ns())
    if revoke is not None:
        if not why.strip():
            raise click.UsageError("--why: say why the key is revoked; it is told to whoever opens a package of it")
        listed = packages.revoking(listed, revoke, time.time_ns(), why)
    if add is not None or revoke is not None:
        packages.save(trust_file, listed)
    for t in listed.trusted:
        state = f"revoked: {t.why}" if t.revoked_utc_ns else "trusted"
        if as_json:
            emit({"name": t.name, "signing": t.signing, "state": "revoked" if t.revoked_utc_ns else "trusted"})
        else:
            click.echo(f"{t.name:24} {t.signing[:16]}… {state}")
    if not as_json:
        click.echo(f"this is {listed.me}")


def _ledger(trust_file: Path, ledger: Path | None) -> Path:
    return ledger or trust_file.with_name(f"{trust_file.stem}.accepted.json")


def _verified(
    package: Path, trust_file: Path, ledger: Path | None, *, replays: bool = True
) -> tuple[Opened, list[Told]]:  # fmt: skip
    """Return a package that is accepted, and what it says. replays : refuse one that was opened before."""
    from scanner_io import exchange as packages
    from scanner_io.errors import DataError
    from scanner_io.foreign import ForeignFiles
    from triage.service import exchanging

    try:
        data = package.read_bytes()
    except OSError as error:
        raise DataError(f"{package}: cannot be read ({error.strerror})") from error
    try:
        opened = packages.verify(
            data, packages.load_trust(trust_file), time.time_ns(),
            packages.load_ledger(_ledger(trust_file, ledger)) if replays else None,
        )  # fmt: skip
        with ForeignFiles() as readers:
            return opened, exchanging.told_in(opened, readers)
    except packages.Refused as error:
        raise DataError(f"{package}: refused: {error}") from error


def _tell(package: Path, opened: Opened, told: list[Told], out: Path | None, as_json: bool) -> None:
    from triage.service.exchanging import summary

    header = opened.header
    rows = [summary(t) for t in told]
    if as_json:
        emit({"file": str(package), "package_id": header.package_id, "sender": header.sender, "accepted": True,
              "simulated": header.simulated, "opened_into": None if out is None else str(out),
              "scans": rows})  # fmt: skip
        return
    console = new_console()
    simulated = " (simulated)" if header.simulated else ""
    console.print(f"{package}: signed by {header.sender}, whole{simulated}", markup=False)
    for row in rows:
        first = "" if row["first_outcome"] == row["outcome"] else f" (first {row['first_outcome']})"
        console.print(
            f"  {row['scan']}  {row['outcome']}{first}  verdict {row['verdict'] or 'none'}  "
            f"{', '.join(row['containers'])}",
            markup=False,
        )
        if row["left_out"]:
            console.print(f"    left out of the declaration: {', '.join(row['left_out'])}", style="dim")
    if out is not None:
        console.print(f"opened into {out}; the same package is refused from now on", markup=False)
