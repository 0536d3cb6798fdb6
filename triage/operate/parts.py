"""What scanlane is made of: the list of parts (CycloneDX) of an installation, and the lock it should be equal to.

The lock is a file of requirements with the SHA-256 of every part, for CPython 3.11 on x86-64 Linux: with

    pip install --require-hashes --no-deps -r requirements.lock

nothing else can be installed. It is written from what pip resolved:

    pip install --dry-run --ignore-installed --report report.json '.[console,dicom,postgres,spectra]'
    scanlane release lock report.json --out triage/operate/requirements.lock

Source: CycloneDX 1.5 JSON; PEP 508, 566; package URL specification.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scanner_io.errors import DataError

EXTRAS = ("console", "dicom", "postgres", "spectra")
"""Optional parts that the lock covers: what a lane, a hub and a workstation may need."""
ITSELF = "scanlane"
_LINE = re.compile(r"^([a-z0-9-]+)==(\S+) --hash=sha256:([0-9a-f]{64})$")
_LOCK_HEAD = """\
# Every part of scanlane with its SHA-256, for CPython 3.11 on x86-64 Linux; written by `scanlane release lock`.
#     pip install --require-hashes --no-deps -r requirements.lock
"""


class Part(NamedTuple):
    """One package. sha256 : of its archive, "" where only the installation is known; needs : names of others"""

    name: str
    version: str
    sha256: str = ""
    licence: str = ""
    needs: tuple[str, ...] = ()


def installed(extras: Iterable[str] = EXTRAS) -> dict[str, Part]:
    """Return every part of the scanlane that is installed here, itself included, by name.

    Walks what each part says that it requires, where it says that it does on this system; optional parts that are not
    here are left out. Raises DataError if one that is required is not here.
    """
    found: dict[str, Part] = {}
    optional: set[str] = set()
    queue = [(ITSELF, frozenset(extras), False)]
    asked: set[tuple[str, frozenset[str]]] = set()
    while queue:
        name, wanted, may_lack = queue.pop()
        if (name, wanted) in asked:
            continue
        asked.add((name, wanted))
        try:
            here = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            if may_lack:
                optional.add(name)
                continue
            raise DataError(f"{name}: required and not installed; install scanlane again") from error
        needs = set(found[name].needs) if name in found else set()
        for text in here.requires or []:
            requirement = Requirement(text)
            always = _holds(requirement, [""])
            if not always and not _holds(requirement, wanted):
                continue
            other = canonicalize_name(requirement.name)
            needs.add(other)
            queue.append((other, frozenset(requirement.extras), may_lack or not always))
        found[name] = Part(name, here.version, "", _licence(here), tuple(sorted(needs)))
    return {n: p._replace(needs=tuple(x for x in p.needs if x not in optional)) for n, p in sorted(found.items())}


def _holds(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def _licence(here: metadata.Distribution) -> str:
    told = "".join(here.metadata.get_all("License-Expression") or [])
    classes = [c.rpartition(" :: ")[2] for c in here.metadata.get_all("Classifier") or [] if c.startswith("License")]
    return told or ", ".join(classes)


def sbom(parts: dict[str, Part]) -> dict[str, Any]:
    """Return the list of parts as CycloneDX 1.5. The same parts give the same bytes: no time, no chance."""
    itself = parts[ITSELF]
    text = "\n".join(f"{p.name}=={p.version} {p.sha256}" for p in parts.values())
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, text)}",
        "metadata": {"component": {**_component(itself), "type": "application"}},
        "components": [_component(p) for n, p in parts.items() if n != ITSELF],
        "dependencies": [{"ref": _url(p), "dependsOn": [_url(parts[n]) for n in p.needs]} for p in parts.values()],
    }  # fmt: skip


def _component(part: Part) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "library", "bom-ref": _url(part), "name": part.name, "version": part.version, "purl": _url(part),
    }  # fmt: skip
    if part.sha256:
        made["hashes"] = [{"alg": "SHA-256", "content": part.sha256}]
    if part.licence:
        made["licenses"] = [{"license": {"name": part.licence}}]
    return made


def _url(part: Part) -> str:
    return f"pkg:pypi/{part.name}@{part.version}"


# --------------------------------------------------------------------------------------------------------------
# The lock


def locked(text: str | None = None) -> dict[str, Part]:
    """Return the parts that a lock names; the package's own by default. Raises DataError for a line that is none."""
    if text is None:
        text = resources.files(__package__).joinpath("requirements.lock").read_text(encoding="utf-8")
    found: dict[str, Part] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None or match[1] in found:
            raise DataError(
                f"lock, line {number}: {line[:80]!r}, expected NAME==VERSION --hash=sha256:…, each name once"
            )
        found[match[1]] = Part(match[1], match[2], match[3])
    return found


def lock_of(report: Path) -> str:
    """Return the text of a lock for what pip resolved (`pip install --report`). Raises DataError."""
    try:
        resolved = msgspec.json.decode(report.read_bytes())["install"]
        lines = {}
        for one in resolved:
            name = canonicalize_name(one["metadata"]["name"])
            if name != ITSELF:
                sha256 = one["download_info"]["archive_info"]["hashes"]["sha256"]
                lines[name] = f"{name}=={one['metadata']['version']} --hash=sha256:{sha256}"
    except (OSError, KeyError, TypeError, msgspec.MsgspecError) as error:
        raise DataError(
            f"{report}: no report of `pip install --report` with a hash of every part ({error!r})"
        ) from error
    return _LOCK_HEAD + "".join(f"{lines[n]}\n" for n in sorted(lines))


class Difference(NamedTuple):
    """How an installation differs from a lock, by names."""

    not_installed: tuple[str, ...]
    not_locked: tuple[str, ...]
    other_version: tuple[str, ...]


def unlocked(parts: dict[str, Part], lock: dict[str, Part]) -> list[str]:
    """Return what tells that the lock is not of this scanlane: names that one has and the other lacks.

    Where versions are newer than the lock's, their own requirements may be others: then only scanlane's own count.
    """
    differs = difference(parts, lock)
    if differs.other_version:
        return [n for n in parts[ITSELF].needs if n not in lock]
    return [*differs.not_installed, *differs.not_locked]


def difference(parts: dict[str, Part], lock: dict[str, Part]) -> Difference:
    """Compare an installation with a lock."""
    here = {n: p for n, p in parts.items() if n != ITSELF}
    return Difference(
        tuple(sorted(lock.keys() - here.keys())), tuple(sorted(here.keys() - lock.keys())),
        tuple(f"{n} {here[n].version} instead of {lock[n].version}" for n in sorted(here.keys() & lock.keys())
              if here[n].version != lock[n].version),
    )  # fmt: skip
