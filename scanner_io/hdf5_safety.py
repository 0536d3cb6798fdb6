"""What an HDF5 file may hold before a value of it is read: its own data, of plain types, in bounded numbers and sizes.

An HDF5 file can name other files (external links, external storage, virtual data sets), and a plain read returns their
bytes; it can ask for code (filters) and declare terabytes in a kilobyte. All of its structure is looked at here, by
calls that read neither values nor other files.

Source: HDF5 file format specification 3.0, sections IV.A.2 (object header messages) and VI (links).
"""

from __future__ import annotations

import math
from typing import Any

import h5py

from .errors import DataError
from .model import MAX_PIXELS

FILTERS_ALLOWED = frozenset({1, 2, 3, 32008, 32015})
"""Deflate, shuffle, Fletcher32, bitshuffle, zstd."""
MAX_DEPTH = 16
MAX_OBJECTS = 2000
MAX_LINKS = 4000
MAX_ATTRIBUTES = 64
"""Of one object."""
MAX_ATTRIBUTE_BYTES = 1 << 20
MAX_DIMENSIONS = 4
MAX_CHUNK_BYTES = 64 << 20
MAX_TEXT_BYTES = 32 << 20
MAX_BYTES = 3 << 29
"""Of all values together: two energies of the most pixels accepted are 1 GiB."""

_NUMBERS = {h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM}
_KINDS = {
    h5py.h5t.TIME: "time", h5py.h5t.BITFIELD: "bit field", h5py.h5t.OPAQUE: "opaque", h5py.h5t.COMPOUND: "compound",
    h5py.h5t.REFERENCE: "reference", h5py.h5t.VLEN: "variable length", h5py.h5t.ARRAY: "array",
}  # fmt: skip


def refuse_unsafe(file: h5py.File, name: str, *, texts_of_any_length: bool = False) -> None:
    """Raise DataError if anything in `file` is refused, saying where and what; nothing is read of its values.

    name : what messages call the file
    texts_of_any_length : let texts of variable length pass, as in recordings of the first form
    """
    _Walk(name, texts_of_any_length).through(file)


class _Walk:
    """One walk over a file's structure, counting as it goes."""

    def __init__(self, name: str, texts_of_any_length: bool) -> None:
        self._name, self._any_length = name, texts_of_any_length
        self._links = 0
        self._bytes = 0
        self._seen: set[int] = set()

    def through(self, file: h5py.File) -> None:
        """Visit every object once, breadth first; hard links may lead in circles."""
        level: list[tuple[str, Any]] = [("", h5py.h5g.open(file.id, b"/"))]
        for _ in range(MAX_DEPTH):
            level = [inner for where, group in level for inner in self._group(where, group)]
            if not level:
                return
        self._refuse(level[0][0], f"more than {MAX_DEPTH} groups deep")

    def _refuse(self, where: str, what: str) -> None:
        raise DataError(f"{self._name}: {where or '/'}: {what}; such files are refused")

    def _group(self, where: str, group: Any) -> list[tuple[str, Any]]:
        """Visit a group; return the groups in it that were not visited yet."""
        self._attributes(where, group)
        self._links += group.get_num_objs()
        if self._links > MAX_LINKS:
            self._refuse(where, f"more than {MAX_LINKS} links")
        names: list[bytes] = []
        group.links.iterate(lambda link: names.append(link))
        inner = []
        for link in names:
            place = f"{where}/{_text(link)}"
            if group.links.get_info(link).type != h5py.h5l.TYPE_HARD:
                self._refuse(place, "a link to another place or another file, not an own part of this file")
            address = h5py.h5o.get_info(group, link).addr
            if address in self._seen:
                continue
            self._seen.add(address)
            if len(self._seen) > MAX_OBJECTS:
                self._refuse(place, f"more than {MAX_OBJECTS} objects")
            found = h5py.h5o.open(group, link)
            if isinstance(found, h5py.h5g.GroupID):
                inner.append((place, found))
            elif isinstance(found, h5py.h5d.DatasetID):
                self._attributes(place, found)
                self._dataset(place, found)
            else:
                self._refuse(place, f"a {type(found).__name__}, neither group nor values")
        return inner

    def _attributes(self, where: str, holder: Any) -> None:
        count = h5py.h5a.get_num_attrs(holder)
        if count > MAX_ATTRIBUTES:
            self._refuse(where, f"{count} attributes, at most {MAX_ATTRIBUTES} are accepted")
        for index in range(count):
            attribute = h5py.h5a.open(holder, index=index)
            place = f"{where or '/'}/@{_text(attribute.name)}"
            self._type(place, attribute.get_type())
            size = attribute.get_storage_size()
            if size > MAX_ATTRIBUTE_BYTES:
                self._refuse(place, f"{size} bytes, at most {MAX_ATTRIBUTE_BYTES} are accepted")

    def _dataset(self, where: str, dataset: Any) -> None:
        plist = dataset.get_create_plist()
        # First of all: even to ask a virtual data set for its shape may open other files.
        if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
            self._refuse(where, "data kept in another file")
        kind = dataset.get_type()
        self._type(where, kind)
        filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
        if not filters <= FILTERS_ALLOWED:
            self._refuse(where, f"filters {sorted(filters)}, allowed are {sorted(FILTERS_ALLOWED)}")
        shape, size = dataset.shape, kind.get_size()
        self._bytes += math.prod(shape) * size
        if len(shape) > MAX_DIMENSIONS or math.prod(shape) > MAX_PIXELS or self._bytes > MAX_BYTES:
            self._refuse(
                where, f"declares values of shape {shape}, {self._bytes} bytes with those before; at most "
                f"{MAX_PIXELS} values and {MAX_BYTES} bytes are accepted",
            )  # fmt: skip
        if plist.get_layout() == h5py.h5d.CHUNKED and math.prod(plist.get_chunk()) * size > MAX_CHUNK_BYTES:
            self._refuse(where, f"chunks of {plist.get_chunk()}, at most {MAX_CHUNK_BYTES} bytes are accepted")

    def _type(self, where: str, kind: Any) -> None:
        """Refuse what is neither number nor text of fixed length."""
        form = kind.get_class()
        if form == h5py.h5t.STRING:
            if kind.is_variable_str():
                if not self._any_length:
                    self._refuse(where, "of variable length")
            elif kind.get_size() > MAX_TEXT_BYTES:
                self._refuse(where, f"a text of {kind.get_size()} bytes, at most {MAX_TEXT_BYTES} are accepted")
        elif form not in _NUMBERS or kind.get_size() > 8:
            self._refuse(where, f"of {_KINDS.get(form, 'another')} type and {kind.get_size()} bytes")


def _text(name: bytes) -> str:
    """Return a name of the file, fit for one line of a message."""
    text = name[:200].decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)[:200]
    return "".join(c if c.isprintable() else "�" for c in text)
