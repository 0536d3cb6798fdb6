"""Writes the service's unit, its user's entry and a commented configuration; takes them away again.

What was written is noted with its hash in `installed.json` beside the configuration. A file that is not as it was
written has been changed by somebody: it is never overwritten and never removed; the new one is put beside it as
`NAME.new`. Data (`/var/lib/scanlane`, keys) is touched by neither.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from scanner_io.errors import ConfigError, DataError
from scanner_io.storage import write_durable

UNIT = Path("/etc/systemd/system/scanlane.service")
SYSUSERS = Path("/etc/sysusers.d/scanlane.conf")
TMPFILES = Path("/etc/tmpfiles.d/scanlane.conf")
CONFIG = Path("/etc/scanlane/lane.toml")
NOTED = Path("/etc/scanlane/installed.json")
PRIVATE = ("localhost", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 -- what ProtectHome and PrivateTmp hide

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}\Z")
_MEMORY = re.compile(r"(?:[1-9][0-9]?|100)%\Z|[1-9][0-9]{0,5}[MG]\Z")


class File(NamedTuple):
    """One file of an installation."""

    path: Path
    content: str


Change = Literal[
    "written",
    "unchanged",
    "updated",
    "changed by hand, new one beside it",
    "removed",
    "left, changed by hand",
    "absent",
]


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """What was installed: path -> SHA-256 of what was written."""

    files: dict[str, str] = {}


def command() -> str:
    """Return what runs this scanlane: its script beside the interpreter, or the interpreter itself."""
    script = Path(sys.executable).with_name("scanlane")
    return str(script) if script.exists() else f"{sys.executable} -m triage.cli"


def unit(user: str, *, memory: str = "66%", networks: Iterable[str] = PRIVATE) -> str:
    """Return the text of the unit.

    user : that runs the service; memory : its limit, as systemd writes it; networks : of devices and workstations

    Raises ConfigError.
    """
    networks = tuple(networks)
    problems = []
    if not _USER.match(user):
        problems.append(f"--user {user!r}: expected a name such as scanlane: small letters, digits, - and _")
    if user == "root":
        problems.append(
            "--user root: the service needs no right of root and must not have any; choose a user of its own"
        )
    if not _MEMORY.match(memory):
        problems.append(f"--memory {memory!r}: expected a share such as 66% or an amount such as 4G")
    for network in networks:
        try:
            network in ("localhost", "any", "link-local") or ipaddress.ip_network(network)
        except ValueError as error:
            problems.append(f"--network {network!r}: {error}; expected such as 10.0.3.0/24")
    if problems:
        raise ConfigError(problems)
    text = _packaged("scanlane.service")
    values = {
        "command": command(),
        "config": str(CONFIG),
        "user": user,
        "memory": memory,
        "networks": " ".join(networks),
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def files(user: str, *, memory: str = "66%", networks: Iterable[str] = PRIVATE) -> list[File]:
    """Return everything that an installation writes. Raises ConfigError."""
    sysusers = f'# The user that runs scanlane.\nu {user} - "scanlane service" /var/lib/scanlane\n'
    folders = ("/var/lib/scanlane", "/var/lib/scanlane/incoming")
    tmpfiles = "# The service's folders, there before its first start.\n"
    tmpfiles += "".join(f"d {folder} 0750 {user} {user} -\n" for folder in folders)
    return [
        File(UNIT, unit(user, memory=memory, networks=networks)), File(SYSUSERS, sysusers),
        File(CONFIG, _packaged("lane.toml")), File(TMPFILES, tmpfiles),
    ]  # fmt: skip


def next_steps(user: str) -> list[str]:
    """Return what root does next, as the manual's page has it."""
    return [
        "systemd-sysusers", "systemd-tmpfiles --create scanlane.conf",
        f"runuser -u {user} -- scanlane check {CONFIG}", f"runuser -u {user} -- scanlane doctor",
        "systemctl daemon-reload", "systemctl enable --now scanlane",
    ]  # fmt: skip


def hidden() -> str:
    """Return why the service could not be started by its unit from where this scanlane is installed; "" if it can."""
    where = command().split()[0]
    real = str(Path(where).resolve())
    bad = next((p for name in (where, real) for p in HIDDEN if name.startswith(p + "/")), "")
    return bad and (
        f"{where}: below {bad}, which the unit hides from the service; install scanlane into /opt/scanlane "
        "(python3 -m venv /opt/scanlane) and run its `install` from there"
    )


def exposure() -> dict[str, str]:
    """Return what remains open of what systemd could close -> why."""
    table: dict[str, str] = tomllib.loads(_packaged("exposure.toml"))
    return table


MONITORING = ("dashboard.json", "alerts.yml")


def write_monitoring(folder: Path) -> list[Path]:
    """Write the dashboard and the alert rules into a folder; return where. Raises StorageError if they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    places = [folder / name for name in MONITORING]
    for place in places:
        write_durable(place, _packaged(place.name).encode(), mode=0o644)
    return places


def install(wanted: list[File], root: Path) -> list[tuple[Path, Change]]:
    """Write files below `root`; return what became of each. Raises OSError, StorageError, DataError."""
    noted = _noted(root)
    changes: list[tuple[Path, Change]] = []
    hashes = dict(noted.files)
    for file in wanted:
        place = below(root, file.path)
        before = _hash(place)
        new = hashlib.sha256(file.content.encode()).hexdigest()
        if before is None or before == new:
            change: Change = "written" if before is None else "unchanged"
        else:
            change = "updated" if before == noted.files.get(str(file.path)) else "changed by hand, new one beside it"
        if change == "changed by hand, new one beside it":
            _write(place.with_name(place.name + ".new"), file.content)
        else:
            hashes[str(file.path)] = new
            if change != "unchanged":
                _write(place, file.content)
        changes.append((place, change))
    _write(below(root, NOTED), msgspec.json.format(msgspec.json.encode(Noted(files=hashes)), indent=1).decode() + "\n")
    return changes


def uninstall(root: Path) -> list[tuple[Path, Change]]:
    """Remove what `install` wrote and nobody has changed; return what became of each. Raises OSError, DataError."""
    noted = _noted(root)
    changes: list[tuple[Path, Change]] = []
    for name, told in noted.files.items():
        place = below(root, Path(name))
        found = _hash(place)
        if found is None:
            changes.append((place, "absent"))
        elif found == told:
            place.unlink()
            changes.append((place, "removed"))
        else:
            changes.append((place, "left, changed by hand"))
    left = {n: noted.files[n] for (p, c), n in zip(changes, noted.files, strict=True) if c == "left, changed by hand"}
    if left:
        _write(below(root, NOTED), json.dumps({"files": left}, indent=1) + "\n")
    else:
        below(root, NOTED).unlink(missing_ok=True)
    return changes


def below(root: Path, path: Path) -> Path:
    """Return where an absolute path lies in a staging folder."""
    return root / path.relative_to("/")


class Exposure(NamedTuple):
    """systemd's own measure. level : 0 is best, 10 worst; left_open : its names of what is not closed -> its words"""

    level: float
    left_open: dict[str, str]


def measured(path: Path) -> Exposure:
    """Let `systemd-analyze security` measure a unit file. Raises OSError where it is not installed, DataError."""
    call = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    words = subprocess.run([*call, str(path)], capture_output=True, text=True, check=False)  # noqa: S603
    as_json = subprocess.run([*call, "--json=short", str(path)], capture_output=True, text=True, check=False)  # noqa: S603
    level = re.search(r"exposure level for \S+: ([0-9.]+)", words.stdout)
    if level is None or as_json.returncode or "ignoring" in words.stderr:
        raise DataError(f"{path}: systemd-analyze could not read it: {words.stderr.strip() or words.stdout[-300:]}")
    left = {e["name"]: e["description"] for e in json.loads(as_json.stdout) if e["exposure"]}
    return Exposure(float(level[1]), left)


def _packaged(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _noted(root: Path) -> Noted:
    place = below(root, NOTED)
    try:
        return msgspec.json.decode(place.read_bytes(), type=Noted)
    except FileNotFoundError:
        return Noted()
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{place}: not the list of what was installed ({error}); without it nothing is overwritten or removed: "
            "move it away to install anew"
        ) from error


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durable(path, content.encode(), replace=True)
    path.chmod(0o644)
