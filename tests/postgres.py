"""A PostgreSQL server of the tests' own, in a temporary folder, with a socket in it and no port."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

# Not synchronous_commit=off: a server that is stopped at once would then forget what it had confirmed.
_FAST = "-c fsync=off -c max_connections=60"


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; None where it is not installed. Debian has them in no PATH."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return Path(on_path).parent if on_path else found[-1].parent if found else None


class Server:
    """A server that can be stopped and started. The user "owner" may do all; "guest", whose password is "s3cret", little."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="pfa-"))  # short: a socket's path may have 107 characters
        self._user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._run("initdb", "--auth=trust", "--username=owner", "--no-sync", "--encoding=UTF8", "--locale=C")
        access = self._folder / "data" / "pg_hba.conf"
        access.write_text(f"local all guest scram-sha-256\n{access.read_text()}")
        self._count = 0
        self.start()
        self.execute("CREATE ROLE guest LOGIN PASSWORD 's3cret'")

    def start(self) -> None:
        """Starts it and waits until it answers."""
        options = f"{_FAST} -c listen_addresses='' -k {self._folder}"
        self._run("pg_ctl", "--wait", "--log", str(self._folder / "log"), "--options", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Ends all connections and stops it."""
        self._run("pg_ctl", "--wait", f"--mode={mode}", "stop")

    def remove(self) -> None:
        """Stops it and deletes all it held."""
        self.stop("immediate")
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """The URL of what is new and empty to pfa: a schema of one database, which takes no files of its own."""
        self._count += 1
        self.execute(f"CREATE SCHEMA empty{self._count}")
        return f"{self.url('postgres')}&options=-csearch_path%3Dempty{self._count}"

    def create(self, database: str) -> str:
        """The URL of a new database."""
        self.execute(f"CREATE DATABASE {database} TEMPLATE template0")
        return self.url(database)

    def url(self, database: str, user: str = "owner") -> str:
        """The URL of a database of this server."""
        return f"postgresql://{user}@/{database}?host={self._folder}"

    def execute(self, command: str, database: str = "postgres") -> None:
        """A command of SQL, outside of a transaction."""
        import psycopg

        connection = psycopg.connect(
            host=str(self._folder), user="owner", dbname=database, autocommit=True, connect_timeout=10
        )
        with connection:
            connection.execute(command.encode())

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), "--pgdata", str(self._folder / "data"), *arguments]
        done = subprocess.run(
            command, user=self._user, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert done.returncode == 0, done.stderr.decode()
