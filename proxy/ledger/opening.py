"""The database file: made, brought to today's schema, or refused.

Layout: `<data directory>/ledger.db` (0600), with `-wal` and `-shm` beside it. All that is SQLite's own is in this file.
Rule: a ledger that is damaged is never replaced by an empty one. Whoever must decide is told how to repair it.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from proxy.errors import StartupError
from proxy.ledger.schema import HEAD

DATABASE = "ledger.db"
PATIENCE = 5.0  # seconds that a statement waits for another process's transaction
CHECKED_WHOLE = 64 << 20  # bytes: up to this every page is checked at the start, at about 0.1 s

# What says nothing of the file's content. All else does, "no such table" and "unsupported file format" too.
_OF_THE_WORLD = (
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
)
_MIGRATIONS = Path(__file__).parent / "migrations"


def database(directory: Path) -> Path:
    """Where the ledger of a data directory is."""
    return directory / DATABASE


def engine(path: Path, *, read_only: bool = False, frozen: bool = False) -> Engine:
    """Every statement is its own transaction, unless it is within `transaction`. Opens nothing yet."""
    mode = f"{'ro' if read_only else 'rw'}{'&immutable=1' if frozen else ''}"
    uri = f"{path.absolute().as_uri()}?mode={mode}"  # never made by chance

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=PATIENCE, check_same_thread=False, isolation_level=None)

    made = create_engine(
        URL.create("sqlite", database=str(path)),
        creator=connect,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
    )
    event.listen(made, "connect", _prepare)
    return made


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    # NORMAL: a commit is in the system's hands, not on the platter. It outlives the process, which is what is asked.
    connection.execute("PRAGMA synchronous = NORMAL")


@contextmanager
def transaction(made: Engine) -> Iterator[Connection]:
    """Several statements as one, the only writer from its start.

    IMMEDIATE: one that began as a reader could not become a writer once another process had written meanwhile.
    """
    with made.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            with suppress(DBAPIError):  # a full disk may have undone it already
                connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")


def open_database(directory: Path) -> Engine:
    """The ledger of this directory, made if it is absent, at today's schema.

    Raises StartupError where it is damaged or not for us, OSError where the directory or the file cannot be used.
    """
    path = database(directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with explained(path), _turn(directory):
        made = engine(path)
        _make(path)
        _check(path)
        _upgrade(made)
    return made


def open_existing(directory: Path, *, read_only: bool = False) -> Engine | None:
    """The same, None where there is none: nothing is made by looking. A reader takes it as it finds it."""
    path = database(directory)
    if not path.exists():
        return None
    if not read_only:
        return open_database(directory)
    with explained(path):
        made = engine(path, read_only=True, frozen=_is_frozen(path))
        with made.connect() as connection:
            version = _version(connection)
            if version is not None and version > HEAD:
                raise StartupError(f"{path}: made by a newer version of Penstock; use that one")
            if version != HEAD:
                raise StartupError(
                    f"{path}: of an older version of Penstock; start the proxy once to bring it up to date"
                )
    return made


def _is_frozen(path: Path) -> bool:
    """Was it closed, in a directory that this user may not write? SQLite would make files beside it even to read."""
    log = path.with_name(f"{path.name}-wal")
    return not os.access(path.parent, os.W_OK) and not (log.exists() and log.stat().st_size)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What the database's errors mean: OSError where it cannot be used now, StartupError where it is damaged."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        if _code(error) in _OF_THE_WORLD:
            raise OSError(f"{path}: {describe(error)}") from None
        raise StartupError(repair(path, describe(error))) from None
    except UnicodeDecodeError:  # sqlite3 could not even quote it
        raise StartupError(repair(path, "its schema is not text")) from None


def repair(path: Path, why: str) -> str:
    """What to do about a damaged ledger."""
    return (
        f"data.directory: {path} is damaged ({why}). Restore a copy of it; or save what can be read with "
        f"`sqlite3 {path} .dump | sed 's/^ROLLBACK.*/COMMIT;/' | sqlite3 {path}.new`, and put that in its place, if "
        f"it holds anything; or move it away, together with "
        f"{DATABASE}-wal and {DATABASE}-shm, and begin with an empty one, which knows no keys and no spendings"
    )


def is_busy(error: BaseException) -> bool:
    """Did another process hold the database for longer than PATIENCE?"""
    return _code(error) == sqlite3.SQLITE_BUSY


def describe(error: BaseException) -> str:
    """For the log: the driver's words, never a statement and its values."""
    cause = getattr(error, "orig", None) or error
    if not isinstance(cause, OSError | sqlite3.Error):
        return type(cause).__name__
    words = "".join(letter if letter.isprintable() else "?" for letter in str(cause))  # it may quote a damaged page
    return f"{type(cause).__name__}: {words}"


def _code(error: BaseException) -> int:
    cause = getattr(error, "orig", None) or error
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one


@contextmanager
def _turn(directory: Path) -> Iterator[None]:
    """Processes open one after another: SQLite does not wait for whoever turns the write-ahead log on just now."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _make(path: Path) -> None:
    """The file, closed to everybody else; SQLite gives those beside it the same rights. Raises OSError."""
    try:
        # Only a new file is opened here: to close one lets go of all locks that SQLite holds on it in this process.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path}: this user may not write it, or not beside it")


def _check(path: Path) -> None:
    """Is every page what it should be? Of a large file only that it is a database whose schema can be read.

    Raises StartupError, sqlite3.Error. What is not seen here makes a write fail later, and is said then.
    """
    whole = path.stat().st_size <= CHECKED_WHOLE
    with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as connection:
        check = "PRAGMA quick_check(1)" if whole else "SELECT count(*) FROM sqlite_schema"
        (found,) = connection.execute(check).fetchone()
        if whole and found != "ok":
            raise StartupError(repair(path, str(found).splitlines()[0]))
        _write_ahead(connection, path)


def _write_ahead(connection: sqlite3.Connection, path: Path) -> None:
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA user_version = 0")  # which is written even where it is what it was
    except sqlite3.OperationalError as error:
        if _code(error) != sqlite3.SQLITE_READONLY:
            raise
        # We may write it, or `_make` had said so: a damaged head says that nobody may.
        raise StartupError(repair(path, describe(error))) from None
    if mode != "wal":
        raise OSError(f"{path}: the file system does not support SQLite's write-ahead log")


def _upgrade(made: Engine) -> None:
    """Bring the schema up to date; processes that start together take turns."""
    with made.connect() as connection:
        if _version(connection) == HEAD:
            return
    with transaction(made) as connection:
        if _version(connection) != HEAD:
            _migrate(connection, made)


def _version(connection: Connection) -> str | None:
    if not connection.exec_driver_sql("SELECT 1 FROM sqlite_schema WHERE name = 'alembic_version'").first():
        return None
    row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    return None if row is None else str(row[0])


def _migrate(connection: Connection, made: Engine) -> None:
    # Imported only here: a start with a database that is up to date does without its quarter of a second.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        path = made.url.database
        raise StartupError(f"data.directory: {path} was made by a newer version of Penstock; use that one") from None
