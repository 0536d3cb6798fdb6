"""The database below the outbox: transactions, and what differs between the two that can be it.

SQLite is the lane's own file, PostgreSQL (`store_postgres`) a site's server that several services share. SQL is written
once, in the dialect both understand, with `?` for values; what they do not share is here and nowhere else.

A value that is committed survives a crash and a power cut. Whatever the database refuses is a StorageError; nothing of
a transaction that ended so is there, but for one whose COMMIT was on its way when the server went: it is there or not,
so every step of the outbox can be done again.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from scanner_io import disk
from scanner_io.config import Config, is_url, url_problem
from scanner_io.errors import StorageError
from scanner_io.storage import write_durable

Row = tuple[Any, ...]


class Server(msgspec.Struct, frozen=True):
    """A database on a PostgreSQL server.

    url : without a password, which is in `password_file` or in ~/.pgpass
    hub : the service among those that share it, see `scanner_io.config.Outbox`; empty for who only looks
    shared : the services find each other's recordings
    """

    url: str
    password_file: str | None = None
    hub: str = ""
    shared: bool = False

    def __str__(self) -> str:
        return self.url


FILE, SIGN = "outbox.sqlite", "outbox.url"
Place = Path | Server
"""Where an outbox is: a file of SQLite, or a database on a server."""


def place_of(config: Config) -> Place:
    """Return where the outbox of a configuration is."""
    o = config.outbox
    if o.url is None:
        return Path(config.state_dir) / FILE
    return Server(o.url, o.password_file, hub=o.hub or "", shared=o.recordings_shared)


def sign(folder: Path, place: Place) -> None:
    """Write into a state folder which server has its outbox, for who looks for it there. Raises StorageError."""
    path = folder / SIGN
    if isinstance(place, Path):
        if path.exists():
            disk.io().unlink(path)
    elif found_in(folder) != place:
        write_durable(path, msgspec.json.encode(place), replace=True)


def found_in(folder: Path) -> Place | None:
    """Return the outbox of a state folder, None if it is none. Raises StorageError."""
    try:
        return msgspec.json.decode((folder / SIGN).read_bytes(), type=Server)
    except (OSError, msgspec.DecodeError) as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise StorageError(f"{folder / SIGN}: does not name a database ({error}); start the lane again") from error
    path = folder / FILE
    return path if path.is_file() else None


def named(text: str) -> Place:
    """Return the outbox that a person names by the state_dir of a lane or the URL of a database.

    Raises StorageError if there is none.
    """
    if is_url(text):
        if why := url_problem(text):
            raise StorageError(f"the URL {why}")
        return Server(text)
    place = found_in(Path(text))
    if place is None:
        raise StorageError(
            f"{text}: there is no outbox; give the state_dir of a lane or postgresql://USER@HOST/DATABASE"
        )
    return place


def opened(place: Place, *, thorough: bool = True) -> Store:
    """Open or create a database. Raises StorageError if it is not usable. thorough : as for `SqliteStore`"""
    return SqliteStore(place, thorough=thorough) if isinstance(place, Path) else _postgres().PostgresStore(place)


def reading(place: Place) -> AbstractContextManager[Reader]:
    """Give a database as it is at this moment, without writing to it. Raises StorageError."""
    return _sqlite_read(place) if isinstance(place, Path) else _postgres().reading(place)


def _postgres() -> ModuleType:
    try:
        from . import store_postgres
    except ImportError as error:
        raise StorageError(f"no client for PostgreSQL ({error}); pip install 'scanlane[postgres]'") from error
    return store_postgres


REMEDY = (
    "move it away: it is made anew from the recordings at the next start; the decisions in it are not, so that scans "
    "already decided are offered once more"
)


class Store(ABC):
    """One connection to the database of one service. Use it from one thread only."""

    place: str
    """What it is called in messages; no secret is in it."""
    connections: int = 1
    """How often it has connected: a higher number than before means that a COMMIT may have gone unanswered."""
    distrusted: str = ""
    """Why what it has written may not be on the disk although it can be read; then its process must end, see below."""

    @abstractmethod
    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a query. Raises StorageError."""

    @abstractmethod
    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Change something inside a transaction; return how many rows. Raises StorageError."""

    @abstractmethod
    def locked(self, sql: str, values: Sequence[Any] = (), *, skip: bool = False) -> Row | None:
        """Return the first row of a query over `outbox`, which nobody else changes until the transaction ends.

        skip : pass over rows that somebody else is changing at this moment, instead of waiting for them

        Raises StorageError.
        """

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Commit what is done inside, or nothing of it. Raises StorageError if it is not committed."""

    @abstractmethod
    def lock_events(self) -> None:
        """Let nobody else add an event until this transaction ends: each one's hash covers the one before."""

    @abstractmethod
    def version(self) -> int:
        """Return the number of the last migration, in a transaction that keeps others from migrating."""

    @abstractmethod
    def migrate(self, number: int, script: str) -> None:
        """Run the statements of one migration, separated by `;`, in a transaction that is open."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection. May be called twice."""

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """Return the first row of a query, None if there is none. Raises StorageError."""
        return next(iter(self.rows(sql, values)), None)


def statements(script: str) -> list[str]:
    """Return the statements of a migration."""
    return [s for s in script.split(";") if s.strip()]


_NOT_SYNCED = {"SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"}


class SqliteStore(Store):
    """A file in WAL mode with synchronous=FULL.

    After a sync that failed, the system holds pages for clean that never reached the disk, and the next sync says yes.
    Nothing is committed on top of them: the store says that it is `distrusted`, and refuses. The next process to open
    it writes all that the log holds into the database anew, syncs that, and begins another log.
    """

    def __init__(self, path: Path, *, what: str = "an outbox", remedy: str = REMEDY, thorough: bool = True) -> None:
        """Open or create it. Raises StorageError if it is not usable.

        what, remedy : for messages, what the file is and what to do where it is damaged
        thorough : check all of it, and fold its log in; without, for who asks a little beside a service that did
        """
        self._thorough = thorough
        self.place = str(path)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.execute("PRAGMA busy_timeout=5000")
            self._db.execute("PRAGMA secure_delete=ON")  # what retention erases does not stay readable in free pages
            if thorough:
                self._fold()
            verdict = self._db.execute("PRAGMA quick_check").fetchone()[0] if thorough else "ok"
        except sqlite3.Error as error:
            hint = remedy if type(error) is sqlite3.DatabaseError else "check its rights and the disk"
            raise StorageError(f"{path}: not usable as {what} ({error}); {hint}") from error
        if verdict != "ok":
            raise StorageError(f"{path}: damaged ({verdict}); {remedy}")

    def close(self) -> None:
        """Fold the write-ahead log into the file and close."""
        if not self.distrusted:
            if self._thorough:
                self._fold()
            self._db.close()
            return
        # The last connection to close would sync the log once more and believe it; one that may only read does not.
        with closing(sqlite3.connect(f"{Path(self.place).resolve().as_uri()}?mode=ro", uri=True)) as last:
            last.execute("PRAGMA user_version").fetchone()
            self._db.close()

    def _fold(self) -> None:
        """Move the write-ahead log into the file; a full disk leaves the log beside it, which is as safe."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            self._doubt(error)

    def _doubt(self, error: sqlite3.Error) -> None:
        if getattr(error, "sqlite_errorname", "") in _NOT_SYNCED:
            self.distrusted = (
                f"{self.place}: its disk did not take what was written ({error.sqlite_errorname}), so that nothing "
                "more is committed here; look at the disk, then start again"
            )

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        if self.distrusted and sql != "ROLLBACK":
            raise StorageError(self.distrusted)
        try:
            return self._db.execute(sql, values)
        except sqlite3.Error as error:
            self._doubt(error)
            raise StorageError(f"{self.place}: {error}; make room on its disk or mend it") from error

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a query. Raises StorageError."""
        cursor = self._execute(sql, values)
        try:
            return cursor.fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"{self.place}: cannot be read ({error}); check its disk") from error

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Change something inside a transaction; return how many rows. Raises StorageError."""
        return self._execute(sql, values).rowcount

    def locked(self, sql: str, values: Sequence[Any] = (), *, skip: bool = False) -> Row | None:
        """Return the first row of a query; whoever is in a transaction is the only writer."""
        return self.row(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside, or nothing of it. Raises StorageError if it is not committed."""
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # after a full disk SQLite has rolled back by itself
                self._execute("ROLLBACK")
            raise

    def lock_events(self) -> None:
        """Do nothing: there is one writer at a time."""

    def version(self) -> int:
        """Return the number of the last migration."""
        return int(self.rows("PRAGMA user_version")[0][0])

    def migrate(self, number: int, script: str) -> None:
        """Run the statements of one migration."""
        for statement in statements(script):
            self._execute(statement)
        self._execute(f"PRAGMA user_version={number}")


#: For messages, where a table or column is not there.
OTHER_VERSION = "another version wrote it: start its service once with this one, which upgrades it"


class Reader(ABC):
    """One moment of a database that a service may be using."""

    @abstractmethod
    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        """Yield the rows of a query as they are asked for. Raises StorageError."""


class _SqliteReader(Reader):
    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._path, self._db = path, db

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.Error as error:
            missing = str(error).startswith("no such ")
            raise StorageError(
                f"{self._path}: cannot be read ({error}); {OTHER_VERSION if missing else 'is it damaged?'}"
            ) from error


@contextmanager
def _sqlite_read(path: Path) -> Iterator[Reader]:
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise StorageError(f"{path}: cannot be opened ({error}); give the state_dir of a lane") from error
    with closing(db):
        try:
            db.execute("BEGIN")
        except sqlite3.Error as error:
            raise StorageError(f"{path}: cannot be read ({error})") from error
        yield _SqliteReader(path, db)
