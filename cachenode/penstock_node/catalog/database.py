"""The catalog's database: SQLite in a file, or PostgreSQL.

Responsible for: its schema, transactions that read and that write, and errors that say what to do.
Not responsible for: tables (`tables`), what is written (`files`).

Calls block; whoever has an event loop makes them in threads. Several catalogs may use one
PostgreSQL: whoever writes holds the counter's row, so that they write one after another.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import stamina
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql

from penstock.errors import CatalogUnavailable, InvalidConfiguration, NoSpace, PenstockError
from penstock_node.catalog.tables import counter

CONNECTIONS_MAX = 16
WAIT_S = 10.0
"""Longest that is waited for a connection, for the database to answer, or for who writes."""
STATEMENT_S = 60.0
"""Longest that a statement may take, where the database can be told."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_FULL = ("disk is full", "disk full", "no space left")


class Database:
    """One database. Thread-safe."""

    def __init__(self, url: str, *, wait_s: float = WAIT_S) -> None:
        """Connect to nothing yet.

        Args:
            url: ``sqlite:///PATH``, or ``postgresql://USER:PASSWORD@HOST/NAME``.
            wait_s: Longest that is waited for the database or for who writes.

        Raises:
            InvalidConfiguration: It is neither, or there is no driver for PostgreSQL here.
        """
        self._url = _checked(url)
        try:
            self.engine = sa.create_engine(
                self._url,
                connect_args=_connect_args(self._url, wait_s),
                pool_pre_ping=not self.is_embedded,
                pool_size=CONNECTIONS_MAX,
                max_overflow=0,
                pool_timeout=wait_s,
            )
        except ModuleNotFoundError as error:
            raise InvalidConfiguration(
                f"a catalog over PostgreSQL needs {error.name}: pip install 'penstock[postgresql]'"
            ) from error
        if self.is_embedded:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        # Without transactions: each would cost a reader two more ways to the database and back.
        self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writing = self.engine.execution_options(penstock_writes=True)

    def __repr__(self) -> str:
        return f"<Database {self._url.render_as_string(hide_password=True)}>"

    @property
    def is_embedded(self) -> bool:
        """Whether it is a file of this machine."""
        return self._url.get_backend_name() == "sqlite"

    def upgrade(self) -> None:
        """Have the schema of this program; several may do so at once.

        Raises:
            InvalidConfiguration: A newer program has written the schema that is there.
            CatalogUnavailable: The database does not answer.
            NoSpace: It is full.
        """
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        with self._told(), self._writing.begin() as connection:
            if not self.is_embedded:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('penstock'))"))
            self._check_schema(connection, config)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _check_schema(self, connection: sa.Connection, config: Config) -> None:
        current = MigrationContext.configure(connection).get_current_revision()
        known = {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}
        if current is not None and current not in known:
            raise InvalidConfiguration(
                f"the database has schema {current}, which this version of Penstock does not know: "
                "a newer one has written it. Run that version or a later one"
            )

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Lend a connection of which each statement sees one state of everything.

        Raises:
            CatalogUnavailable: The database does not answer.
        """
        with self._told(), self._reading.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator["Numbers"]:
        """Lend the numbers of new entries, and their connection, to one who writes at a time.

        All of it is committed at the end, and nothing after an exception.

        Raises:
            CatalogUnavailable: The database does not answer, or another has been writing for long.
            NoSpace: It is full: nothing was written.
        """
        with self._told(), self._writing.begin() as connection:
            lock = sa.select(counter.c.seq).where(counter.c.id == 0).with_for_update()
            numbers = Numbers(connection, connection.execute(lock).scalar_one())
            yield numbers
            numbers.store()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            raise self._as_ours(error) from error
        except exc.TimeoutError as error:
            raise CatalogUnavailable(
                f"all {CONNECTIONS_MAX} connections to the catalog's database are busy; try again"
            ) from error

    def _as_ours(self, error: exc.DBAPIError) -> PenstockError:
        reason = str(error.orig).strip()
        if any(each in reason.lower() for each in _FULL):
            return NoSpace(f"the catalog's database is full, and nothing was written: {reason}")
        if isinstance(error, exc.OperationalError | exc.InterfaceError):
            return CatalogUnavailable(f"the catalog's database does not answer: {reason}")
        raise error  # A fault of ours, which nobody can do anything about.

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


class Numbers:
    """The numbers that one transaction gives to its entries, each greater than all before."""

    def __init__(self, connection: sa.Connection, newest: int) -> None:
        self.connection = connection
        self._stored = newest
        self.newest = newest
        """The last that was given."""

    def next(self) -> int:
        """Return the next one."""
        self.newest += 1
        return self.newest

    def advance(self, newest: int) -> None:
        """Go on behind ``newest``: entries up to it have numbers already."""
        assert newest >= self.newest, "numbers only grow"
        self.newest = newest

    def insert(self, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows, each with all columns in their order, by the database's own fastest way."""
        if not rows:
            return
        if self.connection.dialect.name == "sqlite":
            statement = str(sa.insert(table).compile(dialect=self.connection.dialect))
            self.connection.exec_driver_sql(statement, [*rows])
            return
        cursor: Any = self.connection.connection.cursor()
        statement = f"COPY {table.name} ({', '.join(table.c.keys())}) FROM STDIN"
        driver = self.connection.dialect.loaded_dbapi
        try:
            with cursor, cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)
        except driver.Error as error:  # The cursor is the driver's own, and so are its errors.
            raise exc.DBAPIError.instance(statement, None, error, driver.Error) from error

    def store(self) -> None:
        """Note the newest for those who come."""
        if self.newest != self._stored:
            self.connection.execute(
                sa.update(counter).where(counter.c.id == 0).values(seq=self.newest)
            )


def is_one_of(
    connection: sa.Connection, column: sa.Column[str], texts: Sequence[str]
) -> sa.ColumnElement[bool]:
    """Return the condition that a column is one of some texts.

    They are one parameter: with one each the statement would be put together anew each time, for
    longer than it runs.
    """
    if connection.dialect.name == "sqlite":
        each = sa.func.json_each(json.dumps(texts)).table_valued("value")
        return column.in_(sa.select(each.c.value))
    return column == sa.any_(sa.literal(texts, postgresql.ARRAY(sa.Text)))


def _checked(url: str) -> sa.URL:
    try:
        made = sa.make_url(url)
    except exc.ArgumentError:
        # It may have a password in it: it is not repeated, nor is the reason, which has it too.
        raise InvalidConfiguration(f"database is no url: {_WANTED}") from None
    match made.get_backend_name():
        case "sqlite" if made.database and made.database != ":memory:":
            return made.set(drivername="sqlite+pysqlite")
        case "postgresql":
            return made.set(drivername="postgresql+psycopg")
    raise InvalidConfiguration(f"database={made.render_as_string()!r}: {_WANTED}")


_WANTED = "want sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"


def _connect_args(url: sa.URL, wait_s: float) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": wait_s, "check_same_thread": False}
    settings = {
        "lock_timeout": f"{wait_s * 1000:.0f}",
        "statement_timeout": f"{STATEMENT_S * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{STATEMENT_S * 1000:.0f}",
        # All that is asked for stands in an index. Before the first statistics are there PostgreSQL
        # would gather and sort all that follows, or go through everything.
        "enable_bitmapscan": "off",
        "enable_seqscan": "off",
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return {"connect_timeout": max(2, round(wait_s)), "options": options}


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Transactions are begun by us: the driver would begin them when first written to.
    connection.isolation_level = None
    # Unlike any other statement this one does not wait for a lock.
    for attempt in stamina.retry_context(_is_locked, attempts=None, timeout=WAIT_S, wait_max=0.2):
        with attempt:
            connection.execute("PRAGMA journal_mode=WAL")
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _begin_sqlite(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("penstock_writes"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
