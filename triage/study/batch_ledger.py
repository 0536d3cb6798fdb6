"""The ledger of a batch: one row per recording, and what became of it.

What is not in the ledger has not been done. It is synced by SQLite's checkpoints only: a power cut may cost the last
rows, which are then judged again, never a row that says more than was done.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from scanner_io.errors import DataError, StorageError

SCHEMA = 1
_TABLES = """
CREATE TABLE judged_by (key TEXT NOT NULL);
CREATE TABLE file (
    number INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sound', 'bad', 'poison')),
    row BLOB
);
CREATE INDEX of_state ON file (state, number);
"""
_PAGE = 1000


class Ledger:
    """The ledger in one SQLite file; a context manager. Raises StorageError where the file or its disk fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")  # one batch at a time
            self._db.execute("BEGIN IMMEDIATE")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in filter(None, map(str.strip, _TABLES.split(";"))):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA}")
            self._db.execute("COMMIT")
            self._db.execute("BEGIN")
        except sqlite3.Error as error:
            hint = "another batch is at work on it" if "locked" in str(error) else "choose another folder, or remove it"
            raise StorageError(f"{path}: not usable as a batch's ledger ({error}); {hint}") from error
        if version not in (0, SCHEMA):
            self._db.close()
            raise StorageError(f"{path}: was written by a later version (schema {version}, this one knows {SCHEMA})")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("COMMIT")  # after Ctrl-C too: what was judged until then
        finally:
            self._db.close()

    def _execute(self, sql: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise StorageError(
                f"{self._path}: {error}; make room on its disk and run the same command again"
            ) from error

    def commit(self) -> None:
        """Keep what was entered."""
        self._execute("COMMIT")
        self._execute("BEGIN")

    def belong_to(self, key: str, *, again: bool) -> None:
        """Take note of what is judged by. Raises DataError if it was another."""
        known = self._execute("SELECT key FROM judged_by").fetchone()
        if known is not None and known[0] != key:
            if not again:
                raise DataError(
                    f"{self._path}: its scans were judged by other code or another profile ({known[0]}, now {key}); "
                    "give another folder with --out, or --again to judge all of them anew"
                )
            self._execute("UPDATE file SET state = 'waiting', row = NULL")
        self._execute("DELETE FROM judged_by")
        self._execute("INSERT INTO judged_by VALUES (?)", (key,))
        self.commit()

    def add(self, files: Iterable[tuple[str, int, int]]) -> int:
        """Enter files by path, size and time of change; one that changed waits again. Returns how many came."""
        count = 0
        for count, one in enumerate(files, 1):  # noqa: B007
            self._execute(
                "INSERT INTO file (path, size, mtime_ns) VALUES (?, ?, ?) ON CONFLICT (path) DO UPDATE SET "
                "size = excluded.size, mtime_ns = excluded.mtime_ns, state = 'waiting', row = NULL "
                "WHERE size != excluded.size OR mtime_ns != excluded.mtime_ns",
                one,
            )
        self.commit()
        return count

    def retry(self) -> None:
        """Let what was set aside wait again."""
        self._execute("UPDATE file SET state = 'waiting', row = NULL WHERE state IN ('bad', 'poison')")
        self.commit()

    def waiting(self) -> int:
        """Return how many files wait."""
        return self.counts()["waiting"]

    def counts(self) -> dict[str, int]:
        """Return how many files there are of each state."""
        found = dict(self._execute("SELECT state, count(*) FROM file GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in ("waiting", "sound", "bad", "poison")}

    def tasks(self) -> Iterator[tuple[int, str]]:
        """Yield number and path of every file that waits."""
        last = -1
        while True:
            page = self._execute(
                "SELECT number, path FROM file WHERE state = 'waiting' AND number > ? ORDER BY number LIMIT ?",
                (last, _PAGE),
            ).fetchall()
            yield from page
            if not page:
                return
            last = page[-1][0]

    def path_of(self, number: int) -> str:
        """Return the path of the file of that number."""
        return str(self._execute("SELECT path FROM file WHERE number = ?", (number,)).fetchone()[0])

    def enter(self, number: int, row: bytes, state: str) -> None:
        """Enter what became of a file."""
        self._execute("UPDATE file SET state = ?, row = ? WHERE number = ?", (state, row, number))

    def rows(self) -> Iterator[list[bytes]]:
        """Yield the encoded rows of all files that were tried, by path, in pages."""
        cursor = self._execute("SELECT row FROM file WHERE row IS NOT NULL ORDER BY path")
        while page := list(itertools.islice(cursor, 10 * _PAGE)):
            yield [row for (row,) in page]
