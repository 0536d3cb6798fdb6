"""What a disk may hold after a power cut, from a record of the system calls that wrote to it.

strace writes every call of a process and its children down that changes a file. From any prefix of that record a disk
is made as the worst one that keeps its promises: what was synced is there; of what was not, nothing, or all, or any
part of it in any order, the last writes torn at 4 KiB. A name is there once its folder was synced; of the names that
were not, some first ones in their order, as of a journal. Memory-mapped files (SQLite's -shm) are gone.

Source of the idea: Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014 (ALICE).
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CALLS = (
    "openat,creat,write,pwrite64,writev,pwritev,ftruncate,truncate,fallocate,fsync,fdatasync,rename,renameat,renameat2,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,copy_file_range,sendfile,sendto,sendmsg"
)
UNKNOWN = {
    "writev",
    "pwritev",
    "truncate",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "copy_file_range",
    "sendfile",
    "creat",
}
"""Of a file that is followed they would make the record wrong: `Recorded` refuses it."""
TORN = 4096
DURABLE = b"durable"
"""What is sent is of interest if it says that something is committed."""
SUFFIXES_GONE = ("-shm",)
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_RETURNED = re.compile(r"\) += (-?\d+)(?:<[^>]*>)?(?: .*)?$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^(?:\d+|AT_FDCWD)<([^>]*)>(\(deleted\))?")


def tracer(out: Path) -> tuple[str, ...]:
    """Return the command that runs another and writes its calls into `out`."""
    return (
        "strace", "-D", "-f", "-qq", "-y", "-xx", "-s", "100000000", "--seccomp-bpf", "-e", f"trace={CALLS}",
        "-e", "signal=none", "-o", str(out),
    )  # fmt: skip


class Op(NamedTuple):
    """One thing that was done. kind : write, cut (to a length), room, sync, name, unname, rename, folder, sent

    path : what it was done to; other : its new name; at : offset or length; data : bytes
    """

    kind: str
    path: str
    other: str = ""
    at: int = 0
    data: bytes = b""


def recorded(trace: Path, below: Path) -> list[Op]:
    """Return what was done to files below a folder, and what was sent, in the order in which the calls returned.

    Raises ValueError for a call on such a file that is not understood.
    """
    begun: dict[str, str] = {}
    ops: list[Op] = []
    for line in trace.read_text(errors="replace").splitlines():
        if (resumed := _RESUMED.match(line)) is not None:
            thread, name, rest = resumed.groups()
            text = begun.pop(thread, "") + rest
        elif (called := _LINE.match(line)) is not None:
            thread, name, text = called.groups()
            if text.endswith("<unfinished ...>"):
                begun[thread] = text.removesuffix("<unfinished ...>")
                continue
        else:
            continue
        returned = _RETURNED.search(text)
        if returned is not None and int(returned[1]) >= 0:
            ops += _ops(name, text[: returned.start()], int(returned[1]), str(below))
    return ops


def _ops(name: str, text: str, result: int, below: str) -> Iterator[Op]:
    strings = [bytes.fromhex(s.replace("\\x", "")) for s in _STRING.findall(text)]
    descriptor = _DESCRIPTOR.match(text)
    path = _plain(descriptor[1]) if descriptor is not None else ""
    numbers = [int(n) for n in re.findall(r", (-?\d+)(?= *(?:,|$))", _STRING.sub("", text))]
    if name in ("sendto", "sendmsg"):
        if DURABLE in (data := b"".join(strings)):
            yield Op("sent", "", data=data)
        return
    if name in ("openat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir"):
        yield from _names(name, text, strings, below)
        return
    if not path.startswith(below) or (descriptor is not None and descriptor[2]):
        return
    if name in UNKNOWN:
        raise ValueError(f"{name} on {path}: a power cut cannot be told from a record with it")
    if name == "pwrite64":
        yield Op("write", path, at=numbers[-1], data=strings[0][:result])
    elif name == "write":
        yield Op("write", path, at=-1, data=strings[0][:result])
    elif name == "ftruncate":
        yield Op("cut", path, at=numbers[0])
    elif name == "fallocate":
        yield Op("room", path, at=numbers[-2] + numbers[-1])
    elif name in ("fsync", "fdatasync"):
        yield Op("sync", path)


def _names(name: str, text: str, strings: list[bytes], below: str) -> Iterator[Op]:
    folders = [_plain(f) for f in re.findall(r"(?:\d+|AT_FDCWD)<([^>]*)>", text)]
    paths = [
        os.path.normpath(os.path.join(folder, os.fsdecode(s)))  # noqa: PTH118 -- of text
        for s, folder in zip(strings, folders or [""] * len(strings), strict=False)
    ]
    if not any(p.startswith(below) for p in paths):
        return
    if name == "openat":
        if "O_CREAT" in text:
            yield Op("name", paths[0])
        if "O_TRUNC" in text:
            yield Op("cut", paths[0], at=0)
    elif name.startswith("mkdir"):
        yield Op("folder", paths[0])
    elif name.startswith("rename"):
        yield Op("rename", paths[0], paths[1])
    elif name != "rmdir":
        yield Op("unname", paths[0])


def _plain(text: str) -> str:
    return os.fsdecode(bytes.fromhex(text.replace("\\x", ""))) if text.startswith("\\x") else text


class _File:
    """A file's bytes: those that are on the disk, and what has been done since, in order."""

    def __init__(self) -> None:
        self.durable = bytearray()
        self.since: list[Op] = []
        self.length = 0

    def do(self, op: Op) -> None:
        if op.kind == "write":
            op = op._replace(at=self.length if op.at < 0 else op.at)
            self.length = max(self.length, op.at + len(op.data))
        else:
            self.length = op.at if op.kind == "cut" else max(self.length, op.at)
        self.since.append(op)

    def sync(self) -> None:
        for op in self.since:
            _apply(self.durable, op)
        self.since = []

    def after_cut(self, chance: random.Random, mode: str) -> bytes:
        data = bytearray(self.durable)
        for op in self.since:
            if mode == "all" or (mode == "some" and chance.random() < 0.5):
                _apply(data, op)
            elif mode == "some" and op.kind == "write" and chance.random() < 0.5:
                _apply(data, _torn(op, chance))
        return bytes(data)


def _apply(data: bytearray, op: Op) -> None:
    end = op.at + len(op.data)
    if len(data) < end:
        data.extend(bytes(end - len(data)))
    if op.kind == "write":
        data[op.at : end] = op.data
    elif op.kind == "cut":
        del data[op.at :]


def _torn(op: Op, chance: random.Random) -> Op:
    """Return the first blocks of a write."""
    first = TORN - op.at % TORN
    lengths = range(first, len(op.data), TORN)
    return op._replace(data=op.data[: chance.choice(lengths)]) if len(lengths) else op._replace(data=b"")


class Disk:
    """The files below a folder, as operation after operation is done to them."""

    def __init__(self) -> None:
        self._names: dict[str, _File] = {}
        self._kept: dict[str, _File] = {}
        """Names that are on the disk."""
        self._since: list[Op] = []
        """What has been done to names since, in order."""
        self._folders: set[str] = set()
        self._files: dict[int, _File] = {}

    def do(self, op: Op) -> None:
        """Do the next operation."""
        if op.kind in ("name", "rename", "unname", "folder"):
            self._name(op)
        elif op.kind == "sync" and op.path in self._names:
            self._names[op.path].sync()
        elif op.kind == "sync":
            self._sync_folder(op.path)
        elif op.kind != "sent" and op.path in self._names:
            self._names[op.path].do(op)

    def _name(self, op: Op) -> None:
        if op.kind == "name":
            if op.path in self._names:
                return
            self._names[op.path] = _File()
        elif op.kind == "rename" and op.path in self._names:
            self._names[op.other] = self._names.pop(op.path)
        elif op.kind == "unname":
            self._names.pop(op.path, None)
        self._since.append(op)
        if op.kind == "name":
            self._files[id(op)] = self._names[op.path]

    def _sync_folder(self, path: str) -> None:
        left = []
        for op in self._since:
            if path in (os.path.dirname(op.path), os.path.dirname(op.other)):  # noqa: PTH120 -- of text
                self._keep(self._kept, self._folders, op)
            else:
                left.append(op)
        self._since = left

    def _keep(self, kept: dict[str, _File], folders: set[str], op: Op) -> None:
        if op.kind == "name":
            kept[op.path] = self._files[id(op)]
        elif op.kind == "folder":
            folders.add(op.path)
        elif op.kind == "unname":
            kept.pop(op.path, None)
        elif (file := kept.pop(op.path, None)) is not None:
            kept[op.other] = file

    def write_after_cut(self, root: Path, chance: random.Random, mode: str) -> None:
        """Make the files below `root`, which is empty, as a power cut now leaves them.

        mode : of what was not synced, "none", "all" or "some" is there
        """
        kept, folders = dict(self._kept), set(self._folders)
        count = {"none": 0, "all": len(self._since)}.get(mode, chance.randint(0, len(self._since)))
        for op in self._since[:count]:
            self._keep(kept, folders, op)
        for folder in sorted(folders):
            if Path(folder).is_relative_to(root) and Path(folder).parent.is_dir():
                Path(folder).mkdir(exist_ok=True)
        for name, file in kept.items():
            path = Path(name)
            if path.is_relative_to(root) and path.parent.is_dir() and not name.endswith(SUFFIXES_GONE):
                data = file.after_cut(chance, mode)
                path.write_bytes(data.rstrip(b"\0"))
                os.truncate(path, len(data))  # room that was asked for and not used takes none here
