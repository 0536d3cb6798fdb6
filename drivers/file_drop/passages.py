"""Which files of a watched folder are one passage, and when it is complete. No I/O, no clock of its own.

A sidecar names its files; without one, images whose names differ only in the energy belong together. What was given
before is remembered, so that files that come again, or late, are known.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath

import msgspec

from scanner_io.formats.passage_files import Names, there_and_missing
from scanner_io.formats.sidecar import is_sidecar_name, role_of_name
from scanner_io.vendor_record import Resource, Role, Sidecar

REMEMBERED = 5000
"""Passages given that are known again by number and content; a lane has some hundreds a day."""

Signature = tuple[int, int, int]


class Seen(msgspec.Struct):
    """A file in the folder: its signature, and since when (monotonic seconds) it has been there and unchanged."""

    signature: Signature
    first_s: float
    since_s: float
    problem: str = ""
    settled: bool = False


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that was given to the lane: its sidecar, and the hashes of its files by name."""

    key: str
    sidecar: Sidecar | None = None
    sheet_sha256: str = ""
    images: dict[str, str] = {}
    others: dict[str, str] = {}


class Passage(msgspec.Struct, kw_only=True):
    """Files that are one passage.

    key : the scan's number, or the name of its image
    sheet : name of the sidecar's file, "" where it came before or there is none
    there, missing : as in `there_and_missing`
    final : it has been waited for as long as is stated
    again : what was given of it before
    """

    key: str
    sheet: str = ""
    sidecar: Sidecar | None = None
    there: dict[str, Resource] = {}
    missing: list[Resource] = []
    final: bool = False
    again: Given | None = None

    @property
    def files(self) -> list[str]:
        """Names of all of its files."""
        return [*([self.sheet] if self.sheet else []), *self.there]


class Sheet(msgspec.Struct, frozen=True):
    """A sidecar that was read."""

    signature: Signature
    sidecar: Sidecar
    sha256: str


class Memory:
    """Passages that were given: by number, by the names that their sidecars list, by content of their images."""

    def __init__(self) -> None:
        self.passages: OrderedDict[str, Given] = OrderedDict()
        self._names: dict[str, str] = {}
        self._contents: dict[str, str] = {}

    def add(self, given: Given) -> None:
        """Remember a passage; the oldest is forgotten where there are too many."""
        self.passages[given.key] = given
        self.passages.move_to_end(given.key)
        listed = [r.name for r in given.sidecar.resources] if given.sidecar is not None else []
        self._names.update(dict.fromkeys((n.casefold() for n in (*listed, *given.images, *given.others)), given.key))
        self._contents.update(dict.fromkeys(given.images.values(), given.key))
        while len(self.passages) > REMEMBERED:
            self.forget(next(iter(self.passages)))

    def lists(self, name: str) -> Given | None:
        """Return the passage to which a file of this name belongs."""
        return self.passages.get(self._names.get(name.casefold(), ""))

    def forget(self, key: str) -> None:
        """Forget a passage: it was not given after all."""
        self.passages.pop(key, None)
        for index in (self._names, self._contents):
            for name in [n for n, k in index.items() if k == key]:
                del index[name]

    def with_image(self, sha256: str) -> str | None:
        """Return the number of the passage that had this image."""
        return self._contents.get(sha256)


class Book:
    """The passages of a folder that are on their way.

    counts : whether a name may be that of an image without a sidecar
    energies : name -> glob of the images of one energy
    needed : roles that a passage is not complete without; none: all files listed
    by_names : there are no sidecars: images of all energies are a passage
    """

    def __init__(
        self, counts: Callable[[str], bool], energies: Mapping[str, str], needed: tuple[Role, ...], wait_s: float,
        *, by_names: bool = False,
    ) -> None:  # fmt: skip
        self._counts, self._needed, self._wait_s = counts, needed, wait_s
        self._energies = {energy: _stem_pattern(glob.casefold()) for energy, glob in energies.items()}
        self._by_names = by_names
        self.sheets: dict[str, Sheet] = {}
        self.memory = Memory()

    def unread(self, seen: Mapping[str, Seen]) -> Iterator[str]:
        """Yield sidecars at rest that are to be read, or read anew because they were rewritten."""
        for name in list(self.sheets):
            if name not in seen or seen[name].signature != self.sheets[name].signature:
                del self.sheets[name]
        for name, file in seen.items():
            if file.settled and name not in self.sheets and is_sidecar_name(name):
                yield name

    def ready(self, seen: Mapping[str, Seen], now_s: float, waiting: bool) -> Iterator[Passage]:
        """Yield the passages that are complete, or have been waited for long enough.

        waiting : a sidecar is still to be read, which may name any file: nothing is taken to be without one
        """
        owned: set[str] = set()
        names = Names(seen)
        for name, sheet in self.sheets.items():
            there, missing = there_and_missing(sheet.sidecar, names, self._needed, stem=PurePath(name).stem)
            there.pop(name, None)
            owned |= {name, *there}
            passage = Passage(
                key=sheet.sidecar.scan_id, sheet=name, sidecar=sheet.sidecar, there=there, missing=missing
            )
            passage.again = self.memory.passages.get(passage.key)
            if passage.again is not None:  # what came with it then need not come again
                had = {n.casefold() for n in (*passage.again.images, *passage.again.others)}
                passage.missing = [r for r in missing if r.name.casefold() not in had and not r.name.startswith("(")]
            if self._is_due(passage, seen, now_s):
                yield passage
        if not waiting:
            yield from self._without(seen, owned, now_s)

    def _is_due(self, passage: Passage, seen: Mapping[str, Seen], now_s: float) -> bool:
        files = [seen[name] for name in passage.files]
        whole = all(f.settled and not f.problem for f in files)
        passage.final = now_s - max(f.since_s for f in files) >= self._wait_s and all(f.settled for f in files)
        return (whole and not passage.missing) or passage.final

    def _without(self, seen: Mapping[str, Seen], owned: set[str], now_s: float) -> Iterator[Passage]:
        """Yield images that no sidecar names, and files that came late to a passage that was given."""
        groups: dict[str, Passage] = {}
        for name, file in seen.items():
            if name in owned or is_sidecar_name(name):
                continue
            given = self.memory.lists(name)
            if given is not None and file.settled:
                listed = given.sidecar.resources if given.sidecar is not None else ()
                resource = next(
                    (r for r in listed if r.name.casefold() == name.casefold()), Resource(name=name, role="radiograph")
                )
                late = groups.setdefault(
                    f"\0{given.key}", Passage(key=given.key, sidecar=given.sidecar, again=given, there={})
                )
                late.there[name] = resource
            elif self._counts(name) and role_of_name(name) in ("radiograph", "unknown"):
                group = groups.setdefault(self._stem(name), Passage(key=name, there={}))
                group.there[name] = Resource(name=name, role="radiograph")
        for passage in groups.values():
            if passage.again is None:
                have = {self._energy(name) for name in passage.there}
                passage.missing = [Resource(name=f"({e})", role="radiograph") for e in self._energies if e not in have]
                if "" in have:  # of no energy's name: it is alone
                    passage.missing = []
            complete = self._by_names or passage.again is not None  # else a sidecar may still come
            if self._is_due(passage, seen, now_s) and (complete or passage.final):
                yield passage

    def _energy(self, name: str) -> str:
        return next((e for e, p in self._energies.items() if p.match(name.casefold())), "")

    def _stem(self, name: str) -> str:
        """Return a name without what tells its energy."""
        for pattern in self._energies.values():
            if found := pattern.match(name.casefold()):
                return found["stem"]
        return name


def _stem_pattern(glob: str) -> re.Pattern[str]:
    """Return a glob as an expression whose group `stem` is what its first star stands for."""
    wild = {"*": ".*", "?": "."}
    first, star, rest = glob.partition("*")
    parts = ["".join(wild.get(c, re.escape(c)) for c in part) for part in (first, rest)]
    return re.compile(f"{parts[0]}(?P<stem>{'.*' if star else ''}){parts[1]}$", re.DOTALL)
