"""A PostgreSQL server of its own in a temporary folder, run by a user without rights."""

import getpass
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg

USER = "scanlane"


def _programs():
    """Return the folder with the newest server's programs, None if none is installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    found = shutil.which("initdb")
    return folders[-1] if folders else Path(found).parent if found else None


def missing():
    """Return why there can be no server here, empty if there can."""
    if _programs() is None:
        return "no PostgreSQL server is installed; Debian's package is `postgresql`"
    if shutil.which("setpriv") is None:
        return "no setpriv, by which the server ends with the tests"
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        return "no user `postgres`: the server does not run as root"
    return ""


class Cluster:
    """A server on a socket in its folder and on a port of this machine that asks for a password."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="scanlane-pg-"))
        self.user = "postgres" if os.geteuid() == 0 else getpass.getuser()
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user, self.user)
        self.password = secrets.token_hex(16)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._server = None
        self._schemas = 0
        self._as_user("initdb", "-D", str(self.folder / "data"), "-U", USER, "-E", "UTF8", "--locale=C.UTF-8",
                      "--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions")  # fmt: skip
        self.start()
        with psycopg.connect(self.url(), autocommit=True) as admin:
            admin.execute(f"ALTER USER {USER} PASSWORD '{self.password}'")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop(how=signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def _as_user(self, program, *arguments):
        done = subprocess.run([*self._prefix(), str(_programs() / program), *arguments], capture_output=True, cwd="/")
        assert done.returncode == 0, done.stderr.decode()

    def _prefix(self):
        switch = ["--reuid", self.user, "--regid", self.user, "--init-groups"] if os.geteuid() == 0 else []
        return ["setpriv", "--pdeathsig", "INT", *switch, "--"]

    def start(self):
        """Start it and return as soon as it answers."""
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    *self._prefix(), str(_programs() / "postgres"), "-D", str(self.folder / "data"),
                    "-k", str(self.folder), "-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}",
                    "-c", "max_connections=40", "-c", "shared_buffers=16MB",
                ],
                stdout=log, stderr=log, cwd="/",
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url()).close()
                return
            except psycopg.OperationalError:
                assert self._server.poll() is None, (self.folder / "log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self, *, how=signal.SIGINT):
        """End it; SIGQUIT does not let it tidy up, as a crash does not."""
        self._server.send_signal(how)
        self._server.wait(30)

    def url(self, schema="public", host=None):
        """Return the address of a schema, by the socket unless a host is given."""
        where = f"host={quote(str(self.folder))}" if host is None else f"host={host}"
        return f"postgresql://{USER}@/postgres?{where}&port={self.port}&options=-csearch_path%3D{schema}"

    def new(self):
        """Return the address of an empty place of its own."""
        self._schemas += 1
        with psycopg.connect(self.url(), autocommit=True) as admin:
            admin.execute(f"CREATE SCHEMA t{self._schemas}")
        return self.url(f"t{self._schemas}")

    def ask(self, url, query):
        """Return the rows of a query."""
        with psycopg.connect(url) as connection:
            return connection.execute(query).fetchall()

    def set(self, name, value):
        """Change a setting of the server and return once it is in force."""
        with psycopg.connect(self.url(), autocommit=True) as admin:
            admin.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            admin.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 10
        while self.ask(self.url(), f"SHOW {name}") != [(value,)]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
