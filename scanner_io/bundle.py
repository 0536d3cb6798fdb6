"""Evidence bundles: one ZIP with a recording, its pictures, what was said and decided of it, and the hash of each.

    NAME.scan.h5     the recording, byte for byte as the lane wrote it
    scan.json        judgement, declaration, decisions, opinions with the bytes that were signed and their signatures
                     (hexadecimal), drawn regions and history, with the recording's SHA-256
    summary.html     the same for a person; needs nothing from anywhere
    *.png            each energy in 16 bits, and a preview in 8
    SHA256SUMS       of every other file, as `sha256sum -c` reads it

A bundle comes from elsewhere: nothing of it is unpacked to the disk, names are only compared, and sizes are bounded
before anything is read.
"""

from __future__ import annotations

import hashlib
import html
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import DataError

if TYPE_CHECKING:
    from .foreign import ForeignFiles
    from .recording import Problem

SUFFIX = ".evidence.zip"
SUMS = "SHA256SUMS"
TOLD = "scan.json"
MAX_FILES = 64
MAX_BYTES = 9 << 30
_CHUNK = 1 << 20


class _Told(msgspec.Struct):
    """What `scan.json` must say at least."""

    scan_id: str
    sha256: str


def pack(files: Mapping[str, bytes | memoryview]) -> bytes:
    """Return a bundle of `files` by name, with their sums; stored as they are, for they are packed already."""
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    room = io.BytesIO()
    with zipfile.ZipFile(room, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {**files, SUMS: sums.encode()}.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return room.getvalue()


def energy_name(energy: str) -> str:
    """Return the name of the file with the picture of one energy in 16 bits."""
    return "".join(c if c.isalnum() else "-" for c in energy) + "-16bit.png"


def summary(told: Mapping[str, Any]) -> str:
    """Return what `scan.json` tells as a page that needs nothing else; every word of others is escaped."""

    def text(value: Any) -> str:
        return html.escape(str(value))

    def rows(pairs: list[tuple[str, Any]]) -> str:
        return "".join(f"<tr><th>{text(k)}</th><td>{text(v)}</td></tr>" for k, v in pairs if v not in (None, "", []))

    declaration = told["declaration"] or {}
    findings = "".join(
        f"<li><b>{text(f['tier'])}</b> {text(f['kind'])}: {text(f['reason'])}</li>" for f in told["findings"]
    )
    decisions = "".join(
        f"<li><b>{text(d['verdict'])}</b> by {text(d['analyst'])}, codes {text(d['codes'])}, {text(d['state'])}: "
        f"{text(d['note'])}</li>"
        for d in told["decisions"]
    )
    signed = {s["opinion_id"] for s in told["signed_opinions"]}
    opinions = "".join(
        f"<li><b>{text(o['verdict'] or 'not shown yet')}</b> by {text(o['who'])}"
        f"{'' if o['hidden'] else ', signed' if o['opinion_id'] in signed else ', not signed'}: {text(o['note'])}</li>"
        for o in told["opinions"]
    )
    head = [
        ("Scan", told["scan_id"]), ("SHA-256 of the recording", told["sha256"]), ("Lane", told["lane"]),
        ("Passage", told["start_utc"]), ("Outcome", told["outcome"]), ("Load", told["load"]),
        ("Simulated", "YES" if told["simulated"] else "no"), ("Made by", f"{told['made_by']}, {told['software']}"),
        ("Holds", told.get("holds")),
    ]  # fmt: skip
    picture = '<img src="preview.png" alt="radiograph">' if told["energies"] else "<p>No radiograph.</p>"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{text(told['scan_id'])}</title>"
        "<style>body{font:15px system-ui;margin:2rem;max-width:70rem}img{max-width:100%;border:1px solid #888}"
        "th{text-align:left;padding-right:1rem;vertical-align:top}</style>"
        f"<h1>Evidence: {text(told['scan_id'])}</h1><table>{rows(head)}</table>{picture}"
        f"<h2>Findings</h2><ol>{findings or '<li>none; no finding is not a clearance</li>'}</ol>"
        f"<h2>Declared</h2><table>{rows(list(declaration.items()))}</table>"
        f"<h2>Decisions at this desk</h2><ul>{decisions or '<li>none</li>'}</ul>"
        f"<h2>Opinions before</h2><ul>{opinions or '<li>none</li>'}</ul>"
        f"<p>Everything else is in {TOLD}. Check the bundle with: scanlane verify FILE</p></html>"
    )


def recording_in(path: Path, readers: ForeignFiles) -> bytes:
    """Return the recording in a bundle, byte for byte as the lane wrote it.

    Raises DataError with the first problem of a bundle that is not sound.
    """
    if problems := check_bundle(path, readers):
        raise DataError(f"{problems[0]}; see `scanlane verify {path.name}`")
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith(".scan.h5")))


def check_bundle(path: Path, readers: ForeignFiles) -> list[Problem]:
    """Return every problem of a bundle; its recording is checked as `recording.check` does, in the sandbox."""
    from .recording import Problem

    try:
        with zipfile.ZipFile(path) as archive:
            return [Problem(check=c, where=f"{path}:{w}", text=t) for c, w, t in _problems(archive, readers)]
    except (OSError, zipfile.BadZipFile, DataError, NotImplementedError, RuntimeError, EOFError) as error:
        return [Problem(check="readable", where=str(path), text=f"no evidence bundle can be read: {error}")]


def _problems(archive: zipfile.ZipFile, readers: ForeignFiles) -> Iterator[tuple[str, str, str]]:
    members = archive.infolist()
    names = [m.filename for m in members]
    if len(members) > MAX_FILES or sum(m.file_size for m in members) > MAX_BYTES:
        raise DataError(f"{len(members)} files of {sum(m.file_size for m in members)} bytes: more than a bundle has")
    if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
        raise DataError("its files are packed; scanlane's are stored as they are")
    if len(set(names)) != len(names) or SUMS not in names:
        raise DataError(f"files {names[:8]}: expected each once, with {SUMS} among them")
    sums = _sums(archive.read(SUMS))
    for name in sorted({*sums, *names} - {SUMS}):
        if name not in sums:
            yield "sums", name, f"is not in {SUMS}: it was added later"
        elif name not in names:
            yield "sums", name, f"is in {SUMS} and missing"
        elif (seen := _hash(archive, name)) != sums[name]:
            yield "sums", name, f"hashes to {seen}, {SUMS} says {sums[name]}"
    yield from _recording(archive, names, sums, readers)


def _sums(text: bytes) -> dict[str, str]:
    found = {}
    for line in text[:_CHUNK].decode("utf-8", "replace").splitlines():
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64:
            raise DataError(f"{SUMS}: line {line[:80]!r}, expected a SHA-256, two blanks and a name")
        found[name] = digest
    return found


def _hash(archive: zipfile.ZipFile, name: str) -> str:
    digest = hashlib.sha256()
    with archive.open(name) as member:
        while chunk := member.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _recording(
    archive: zipfile.ZipFile, names: list[str], sums: dict[str, str], readers: ForeignFiles
) -> Iterator[tuple[str, str, str]]:  # fmt: skip
    """Check that there is one recording, that it is sound, and that what is told is told of it."""
    recordings = [n for n in names if n.endswith(".scan.h5")]
    if len(recordings) != 1 or TOLD not in names:
        yield "contents", ", ".join(names[:8]), f"expected one recording and {TOLD}"
        return
    try:
        told = msgspec.json.decode(archive.read(TOLD), type=_Told)
    except (msgspec.MsgspecError, RecursionError) as error:
        yield "contents", TOLD, str(error)
        return
    data = archive.read(recordings[0])
    if hashlib.sha256(data).hexdigest() != told.sha256:
        yield "identity", recordings[0], f"is not the recording that {TOLD} speaks of ({told.sha256})"
    try:
        scan = readers.recording_of(data, recordings[0]).scan
    except DataError as error:
        yield "readable", recordings[0], str(error)
        return
    if scan.scan_id != told.scan_id:
        yield "identity", recordings[0], f"is of {scan.scan_id}, {TOLD} is of {told.scan_id}"
