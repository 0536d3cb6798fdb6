"""PostgreSQL below the outbox: the option for a site, whose services share one database.

One transaction per step, READ COMMITTED, synchronous_commit=on: a COMMIT that was answered is on the server's disk, and
on its synchronous standby's where it has one. A server that gives up durability (fsync or full_page_writes off) is
refused. Rows are locked before the chain of events, by every service in this order; who looks for work passes over what
another one is taking (SKIP LOCKED).

The server may be restarted at any time: a connection that is gone is made anew by the next step, at most one attempt
every few seconds, so that a server that is away does not hold up the loop. A step that had not begun is done on the new
connection; one that had is a StorageError.

The password comes from a file, `~/.pgpass` or `password_file`; it is never part of an address, which is in logs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import psycopg.conninfo

from scanner_io.errors import ConfigError, StorageError
from scanner_io.security import secret_in

from .store import OTHER_VERSION, Reader, Row, Server, Store, statements

OLDEST = 130000
"""PostgreSQL 13: what Debian's oldest release in use has."""
CONNECT_S = 3
AWAIT_S, AWAIT_MAX_S = 0.5, 10.0
"""After a connection that could not be made the next try is so much later, twice as long each time."""
CHAIN, SCHEMA = 0x5CA91A7E01, 0x5CA91A7E02
"""Advisory locks: of the chain of events, of the schema."""
HUB = 0x5CA91A7E
"""Of a service's name, with the hash of the name: held as long as the connection lives."""
SESSION = {
    "synchronous_commit": "on", "lock_timeout": "5s", "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s", "default_transaction_isolation": "read committed",
    "tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3", "tcp_user_timeout": "10s",
}  # fmt: skip


def connect(place: Server) -> psycopg.Connection[Row]:
    """Connect to the server. Raises StorageError."""
    try:
        password = None if place.password_file is None else secret_in(Path(place.password_file))
        whole = psycopg.conninfo.make_conninfo(place.url, password=password)
        return psycopg.connect(
            whole, autocommit=True, connect_timeout=CONNECT_S, application_name="scanlane",
            # A server that vanished without a word is noticed by the kernel, not by a person.
            keepalives_idle=5, keepalives_interval=2, keepalives_count=3, tcp_user_timeout=10_000,
        )  # fmt: skip
    except (psycopg.Error, ConfigError) as error:
        raise StorageError(f"{place.url}: no connection ({_line(error)}); is the server up?") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class PostgresStore(Store):
    """A database on a server."""

    def __init__(self, place: Server, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Connect. Raises StorageError if the server cannot be reached or its database not be trusted."""
        self.place = place.url
        self._where = place
        self._monotonic = monotonic
        self.connections = 0
        self._connection: psycopg.Connection[Row] | None = None
        self._within: psycopg.Connection[Row] | None = None
        """The connection of the transaction that is open: a step never goes on on another one."""
        self._wait_s = AWAIT_S
        self._not_before_s = -1.0
        self._last_error = ""
        self._connected()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    # ----------------------------------------------------------------------------------------------- connection

    def _connected(self) -> psycopg.Connection[Row]:
        """Return the connection, made anew if it is gone. Raises StorageError."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        self.close()
        if self._monotonic() < self._not_before_s:
            raise StorageError(self._last_error)
        try:
            made = connect(self._where)
            try:
                self._look_at(made)
            except BaseException:
                made.close()
                raise
        except StorageError as error:
            self._not_before_s = self._monotonic() + self._wait_s
            self._wait_s = min(2 * self._wait_s, AWAIT_MAX_S)
            self._last_error = str(error)
            raise
        self._wait_s = AWAIT_S
        self.connections += 1
        self._connection = made
        return made

    def _look_at(self, connection: psycopg.Connection[Row]) -> None:
        """Set how this connection commits; refuse a server that does not keep what it has acknowledged."""
        wrong = []
        if connection.info.server_version < OLDEST:
            wrong.append(f"version {connection.info.server_version}, expected at least {OLDEST}")
        try:
            for name, value in SESSION.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            for name, expected in (("fsync", "on"), ("full_page_writes", "on"), ("server_encoding", "UTF8")):
                found = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
                if found != (expected,):
                    wrong.append(f"{name} is {found and found[0]}, expected {expected}")
            if connection.execute("SELECT pg_is_in_recovery()").fetchone() != (False,):
                wrong.append("it is a standby, expected the primary")
            if self._where.hub:  # the connection of one that was just killed needs a moment to end
                connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (HUB, self._where.hub))
        except psycopg.errors.LockNotAvailable as error:
            raise StorageError(
                f"{self.place}: another service is hub {self._where.hub!r} there; give each its own outbox.hub"
            ) from error
        except psycopg.Error as error:
            raise self._fault(error) from error
        if wrong:
            raise StorageError(f"{self.place}: not usable as an outbox: {'; '.join(wrong)}")

    def _fault(self, error: psycopg.Error) -> StorageError:
        return StorageError(f"{self.place}: {_line(error)}; look at the database server")

    def _begin(self, sql: str, values: Sequence[Any] = ()) -> psycopg.Cursor[Row]:
        """Execute the first statement of a step: if the connection turns out to be gone, once more on a new one."""
        connection = self._connected()
        try:
            return connection.execute(_own(sql), values)
        except psycopg.Error as error:
            if not connection.closed:
                raise self._fault(error) from error
        return self._on(self._connected(), sql, values)

    def _on(self, connection: psycopg.Connection[Row], sql: str, values: Sequence[Any] = ()) -> psycopg.Cursor[Row]:
        try:
            return connection.execute(_own(sql), values)
        except psycopg.Error as error:
            raise self._fault(error) from error

    # ---------------------------------------------------------------------------------------------------- steps

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> psycopg.Cursor[Row]:
        assert self._within is not None, "in a transaction only"
        return self._on(self._within, sql, values)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a query. Raises StorageError."""
        return (self._begin if self._within is None else self._execute)(sql, values).fetchall()

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Change something inside a transaction; return how many rows. Raises StorageError."""
        return self._execute(sql, values).rowcount

    def locked(self, sql: str, values: Sequence[Any] = (), *, skip: bool = False) -> Row | None:
        """Return the first row of a query over `outbox`, locked until the transaction ends."""
        return self._execute(f"{sql} FOR UPDATE OF outbox{' SKIP LOCKED' if skip else ''}", values).fetchone()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside, or nothing of it. Raises StorageError if it is not known to be committed."""
        self._begin("BEGIN")
        within = self._within = self._connected()
        try:
            yield
            if (said := self._execute("COMMIT").statusmessage) != "COMMIT":  # an error inside was passed over
                raise StorageError(f"{self.place}: a transaction ended as {said}")
        except BaseException:
            if not within.closed:
                with suppress(psycopg.Error):  # then the connection is gone, and with it the transaction
                    within.execute("ROLLBACK")
            raise
        finally:
            self._within = None

    def lock_events(self) -> None:
        """Let nobody else add an event until this transaction ends."""
        self._execute("SELECT pg_advisory_xact_lock(?)", (CHAIN,))

    # --------------------------------------------------------------------------------------------------- schema

    def version(self) -> int:
        """Return the number of the last migration, in a transaction that keeps others from migrating."""
        self._execute("SELECT pg_advisory_xact_lock(?)", (SCHEMA,))
        self._execute(
            "CREATE TABLE IF NOT EXISTS migrations (number BIGINT PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL)"
        )
        return int(self.rows("SELECT COALESCE(MAX(number), 0) FROM migrations")[0][0])

    def migrate(self, number: int, script: str) -> None:
        """Run the statements of one migration."""
        for statement in statements(script):
            self._execute(_types(statement))
        self._execute("INSERT INTO migrations VALUES (?, now())", (number,))


def _own(sql: str) -> bytes:
    """Return `sql` with the placeholders of psycopg; texts of values never come this way."""
    return sql.replace("%", "%%").replace("?", "%s").encode()


def _types(statement: str) -> str:
    """Return a statement of the schema with the names that PostgreSQL has for types."""
    for theirs, ours in (
        (r"\bBLOB\b", "BYTEA"), (r"\bINTEGER\b", "BIGINT"), (r"\)\s*STRICT\b", ")"), (r"\bAUTOINCREMENT\b", ""),
        (r"\bx''", "''"),
    ):  # fmt: skip
        statement = re.sub(theirs, ours, statement)
    return statement


class _PostgresReader(Reader):
    def __init__(self, place: Server, connection: psycopg.Connection[Row]) -> None:
        self._place, self._connection = place, connection

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        """Yield the rows of a query as they are asked for. Raises StorageError."""
        try:
            with self._connection.cursor(name="reading") as cursor:
                cursor.itersize = 1000
                cursor.execute(_own(sql), values)
                yield from cursor
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise StorageError(f"{self._place.url}: cannot be read ({_line(error)}); {OTHER_VERSION}") from error
        except psycopg.Error as error:
            raise StorageError(f"{self._place.url}: cannot be read ({_line(error)})") from error


@contextmanager
def reading(place: Server) -> Iterator[Reader]:
    """Give the database as it is at this moment, without writing to it. Raises StorageError."""
    with closing(connect(place)) as connection:
        try:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        except psycopg.Error as error:
            raise StorageError(f"{place.url}: cannot be read ({_line(error)})") from error
        yield _PostgresReader(place, connection)
