"""Taking rights away from this very process, for good: resource limits, Landlock, seccomp, capabilities.

Landlock refuses every file but the libraries and the one that is to be read; seccomp refuses the system calls by which
a taken-over reader could reach a network, another process or a writable file. The filter is a list of what is refused,
not of what is allowed: which calls numpy, libhdf5 and the C library make changes with their versions, and a call that
is missing from a list of the allowed would be found at the lane, as a good file that cannot be read. What a list of
the refused may have forgotten still meets Landlock, a process without capabilities, no environment, and three open
descriptors. Called by ctypes, because there is no kept library for either in Python.

Source: landlock(7), linux/landlock.h (ABI 1 to 7); seccomp(2), linux/filter.h; capabilities(7); setrlimit(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Iterable
from pathlib import Path

import msgspec

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on every machine
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights on files that an ABI of at least this number can refuse."""
_NET_FROM, _SCOPE_FROM = 4, 6
_BOTH = 0b11
"""Binding and connecting TCP; abstract sockets and signals of processes outside."""

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_SIGKILL = 9

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# name, number on x86_64, on aarch64 (- where it has none)
_REFUSED = """
socket 41 198, socketpair 53 199, connect 42 203, bind 49 200, listen 50 201, accept 43 202, accept4 288 242,
sendto 44 206, sendmsg 46 211, sendmmsg 307 269, recvmsg 47 212, recvmmsg 299 243,
clone 56 220, fork 57 -, vfork 58 -, execve 59 221, execveat 322 281,
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440, kcmp 312 272,
pidfd_open 434 434, pidfd_getfd 438 438, pidfd_send_signal 424 424, kill 62 129, tkill 200 130, tgkill 234 131,
rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240,
creat 85 -, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38,
renameat2 316 276, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, mknod 133 -, mknodat 259 33,
truncate 76 45, ftruncate 77 46, fallocate 285 47, chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452,
chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54, utime 132 -, utimes 235 -, futimesat 261 -, utimensat 280 88,
setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16,
setxattrat 463 463, removexattrat 466 466, memfd_create 319 279, memfd_secret 447 447,
name_to_handle_at 303 264, open_by_handle_at 304 265,
mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, unshare 272 97, setns 308 268, open_tree 428 428,
move_mount 429 429, fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 433, mount_setattr 442 442,
open_tree_attr 467 467,
bpf 321 280, userfaultfd 323 282, perf_event_open 298 241, fanotify_init 300 262, keyctl 250 219, add_key 248 217,
request_key 249 218, init_module 175 105, finit_module 313 273, delete_module 176 106, kexec_load 246 104,
kexec_file_load 320 294, reboot 169 142, swapon 167 224, swapoff 168 225, sethostname 170 161, setdomainname 171 162,
acct 163 89, quotactl 179 60, settimeofday 164 170, clock_settime 227 112, adjtimex 159 171, clock_adjtime 305 266,
personality 135 92, syslog 103 116, iopl 172 -, ioperm 173 -,
io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427,
setrlimit 160 164, shmget 29 194, shmat 30 196, msgget 68 186, semget 64 190, mq_open 240 180
"""
# answered as if the kernel were too old for them, upon which the C library takes the older call, which is looked at
_UNKNOWN = "clone3 435 435, openat2 437 437"
_OPEN = {"x86_64": ((2, 1), (257, 2)), "aarch64": ((56, 2),)}
"""Numbers of open and openat, and which argument holds their flags."""
_PRLIMIT = {"x86_64": 302, "aarch64": 261}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one reader may take. numpy and OpenCV alone map 0.3 GiB of `memory_bytes`, which is address space.

    wall_s : by this machine's clock, for a reader that sleeps; far more than `cpu_s`, since others need the cores too
    """

    memory_bytes: int = 2 << 30
    cpu_s: int = 10
    wall_s: float = 40.0
    files: int = 32


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """What holds a reader.

    landlock : ABI in force, 0 without; system_calls : whether they are filtered
    breaches : what a reader could do all the same when it was tried, in words
    """

    landlock: int
    system_calls: bool
    breaches: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Return whether nothing is missing."""
        return self.landlock > 0 and self.system_calls and not self.breaches

    def __str__(self) -> str:
        landlock = f"Landlock ABI {self.landlock}" if self.landlock else "NO Landlock"
        filtered = "system calls filtered" if self.system_calls else "system calls NOT filtered"
        breaches = f"; a reader could {', '.join(self.breaches)}" if self.breaches else ""
        return f"{landlock}, {filtered}, limits of memory and time{breaches}"


def confine(libraries: Iterable[str], file: int, limits: Limits) -> Confinement:
    """Take from this process all that a reader of one file does not need. There is no way back.

    libraries : folders that may be read; file : descriptor of the file

    Returns what could be put in force; raises OSError where a kernel that has a means refuses its use.
    """
    _limit(limits)
    _call("prctl", _prctl(_PR_SET_NO_NEW_PRIVS, 1))
    landlock = _landlock(libraries, file)
    _drop_capabilities()
    return Confinement(landlock=landlock, system_calls=_filter_system_calls())


def die_with_parent(parent: int) -> None:
    """End this process when the one that forked it ends."""
    _call("prctl", _prctl(_PR_SET_PDEATHSIG, _SIGKILL))
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _system_call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call; numbers as 64 bits, for the upper half of a shorter one may hold anything."""
    wide = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    return int(_libc.syscall(ctypes.c_long(number), *wide))


def _prctl(option: int, *arguments: int | bytes) -> int:
    wide = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in (*arguments, 0, 0, 0)[:4]]
    return int(_libc.prctl(option, *wide))


def _call(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _limit(limits: Limits) -> None:
    for what, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_NOFILE, limits.files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # One second more for processor time: SIGXCPU comes first and tells why.
        resource.setrlimit(what, (value, value + 1 if what == resource.RLIMIT_CPU else value))


def _landlock(libraries: Iterable[str], file: int) -> int:
    """Refuse all files but these; return the ABI in force, 0 if this kernel has none."""
    abi = _system_call(_LANDLOCK_CREATE, None, 0, _VERSION_FLAG)
    if abi < 1:
        return 0
    rights = _FILE_RIGHTS[max(n for n in _FILE_RIGHTS if n <= abi)]
    fields = [rights, *([_BOTH] if abi >= _NET_FROM else []), *([_BOTH] if abi >= _SCOPE_FROM else [])]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    rules = _call("landlock_create_ruleset", _system_call(_LANDLOCK_CREATE, attributes, len(attributes), 0))
    try:
        for folder in libraries:
            if Path(folder).is_dir():
                place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
                try:
                    _allow(rules, place, _READ_FILE | _READ_DIR)
                finally:
                    os.close(place)
        try:
            _allow(rules, file, _READ_FILE)
        except OSError as error:
            # A file in memory lies on no file system that paths lead to, so it needs no rule.
            if error.errno != errno.EBADFD:
                raise
        _call("landlock_restrict_self", _system_call(_LANDLOCK_RESTRICT, rules, 0))
    finally:
        os.close(rules)
    return int(abi)


def _allow(rules: int, place: int, rights: int) -> None:
    beneath = struct.pack("=Qi", rights, place)
    _call("landlock_add_rule", _system_call(_LANDLOCK_ADD, rules, _PATH_BENEATH, beneath, 0))


def _drop_capabilities() -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _call("capset", _libc.capset(header, bytes(24)))


def _filter_system_calls() -> bool:
    """Refuse system calls; False if that is not known for this machine or the kernel has no filters."""
    program = filter_program(platform.machine())
    if not program:
        return False
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count and, aligned, a pointer
    whole = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, whole) < 0:
        if ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS):  # not built into this kernel
            return False
        _call("seccomp", -1)
    return True


def _numbers(text: str, machine: str) -> list[int]:
    column = 1 if machine == "x86_64" else 2
    rows = [row.split() for row in text.split(",")]
    return [int(row[column]) for row in rows if row[column] != "-"]


def filter_program(machine: str) -> bytes:
    """Return the filter for a machine as `platform.machine` names it, 8 bytes an instruction; empty if not known."""
    if machine not in _ARCHITECTURES:
        return b""
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    # A call by the numbers of another architecture would pass by the list: it ends the process.
    code = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL)]
    code += [(_LOAD, 0, 0, _NUMBER_AT)]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for number in _numbers(_REFUSED, machine):
        code += [(_EQUAL, 0, 1, number), refuse]
    for number in _numbers(_UNKNOWN, machine):
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    for number, argument in _OPEN[machine]:
        low = _ARGUMENTS_AT + 8 * argument
        code += [(_EQUAL, 0, 5, number), (_LOAD, 0, 0, low), (_AND, 0, 0, _WRITING), (_EQUAL, 1, 0, 0), refuse]
        code += [(_RETURN, 0, 0, _ALLOW)]
    # prlimit64 also reads limits, which the C library needs; setting them is what its third argument is for
    low = _ARGUMENTS_AT + 16
    code += [(_EQUAL, 0, 5, _PRLIMIT[machine]), (_LOAD, 0, 0, low), (_EQUAL, 0, 2, 0), (_LOAD, 0, 0, low + 4)]
    code += [(_EQUAL, 1, 0, 0), refuse, (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
