"""Answers SQL about records, by DuckDB: each stream is a view, with the common fields as columns.

The records are loaded into a temporary database on disk, so memory stays bounded. After that the
query has no access to other files, nor to the network.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from logengine.errors import InvalidOption, LogEngineError, NotInstalled
from logengine.exchange.exporting import LINE_BYTES_MAX, TEMPORARY_LEVEL, zstd_frames
from logengine.filtering.levels import LEVEL_NAMES, LEVELS, NUMBERS_STOP, rank_of_number
from logengine.format.block import Block

if TYPE_CHECKING:
    import duckdb

# All records, in a schema of its own: a stream may have any name.
SCHEMA, TABLE = "logengine", "records"
_LEVEL = "json->>'$.level'"


def _level_column() -> str:
    """Returns the level by the name of its rank; what is no level is as it is."""
    spellings = [list(names) for names in LEVELS]
    for number in range(NUMBERS_STOP):
        rank = rank_of_number(number, "level")
        if rank is not None:
            spellings[rank].append(str(number))
    cases = " ".join(
        f"WHEN lower({_LEVEL}) IN ({', '.join(map(_text, each))}) THEN {_text(name)}"
        for name, each in zip(LEVEL_NAMES, spellings, strict=True)
    )
    return f"CASE {cases} ELSE {_LEVEL} END"


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


COLUMNS = {
    "_stream": "json->>'$._stream'",
    "_seq": "CAST(json->>'$._seq' AS BIGINT)",
    # Without a zone, in UTC: Python needs a further package for times with one.
    "_ts": "TRY_CAST(left(json->>'$._ts', 26) AS TIMESTAMP)",
    "_pid": "TRY_CAST(json->>'$._pid' AS BIGINT)",
    "_uid": "TRY_CAST(json->>'$._uid' AS BIGINT)",
    "_comm": "json->>'$._comm'",
    "_unit": "json->>'$._unit'",
    "level": _level_column(),
    "message": "coalesce(json->>'$.event', json->>'$.message', json->>'$.msg')",
    "record": "json",
    "_addr": "json->>'$._addr'",
    "_file": "json->>'$._file'",
}
_MEMORY_LIMIT = "1GB"
_FETCHED_ROWS = 1000


class Answer:
    """The rows of a query. `names` are those of the columns."""

    def __init__(self, cursor: "duckdb.DuckDBPyConnection") -> None:
        self.names: list[str] = [each[0] for each in cursor.description or ()]
        self._cursor = cursor

    def rows(self) -> Iterator[Sequence[Any]]:
        """The rows, once. Raises `LogEngineError` for a value that cannot be computed."""
        while True:
            with _errors_of_duckdb():
                rows = self._cursor.fetchmany(_FETCHED_ROWS)
            if not rows:
                return
            yield from rows


class Database:
    """A temporary database, removed on exit. Raises `NotInstalled` without DuckDB."""

    def __init__(self) -> None:
        try:
            import duckdb
        except ImportError:
            raise NotInstalled(
                "queries are answered by DuckDB, which is not installed; "
                "pip install 'logengine[query]'"
            ) from None
        self._stack = contextlib.ExitStack()
        self._directory = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="logengine-query-")
        )
        self._connection = self._stack.enter_context(
            duckdb.connect(
                os.path.join(self._directory, "records.duckdb"),
                config={
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                    "memory_limit": _MEMORY_LIMIT,
                    "python_enable_replacements": "false",  # tables are no variables of ours
                    "temp_directory": self._directory,
                    "threads": "2",
                },
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def streams_of(self, sql: str, streams: Iterable[str]) -> list[str]:
        """Returns those of the streams that a query reads. Raises `InvalidOption`."""
        with _errors_of_duckdb():
            tables = self._connection.get_table_names(sql, qualified=True)
        named = {each.lower() for each in tables}
        if f"{SCHEMA}.{TABLE}" in named:
            return list(streams)
        plain = {each.rpartition(".")[2].strip('"') for each in named}
        return [each for each in streams if each.lower() in plain]

    def load(self, blocks: Iterable[Block], streams: Iterable[str]) -> None:
        """Loads the records of blocks, and creates a view for each of the streams."""
        lines = os.path.join(self._directory, "lines.ndjson.zst")
        pieces = (piece for block in blocks for piece in block.with_places())
        with open(lines, "wb") as file:
            file.writelines(zstd_frames(pieces, TEMPORARY_LEVEL))
        columns = ", ".join(f"{value} AS {name}" for name, value in COLUMNS.items())
        with _errors_of_duckdb():
            self._connection.execute(f"CREATE SCHEMA {SCHEMA}")
            self._connection.execute(
                f"CREATE TABLE {SCHEMA}.{TABLE} AS SELECT {columns} FROM read_ndjson_objects("  # noqa: S608 - of constants
                "$lines, compression = 'zstd', maximum_object_size = $bytes_max)",
                {"lines": lines, "bytes_max": LINE_BYTES_MAX},
            )
            for stream in streams:
                self._connection.execute(
                    f"CREATE VIEW {_quoted(stream)} AS "  # noqa: S608 - both are quoted
                    f"SELECT * FROM {SCHEMA}.{TABLE} WHERE _stream = {_text(stream)}"
                )
            self._connection.execute("SET enable_external_access = false")
            self._connection.execute("SET lock_configuration = true")
        os.unlink(lines)

    def answer(self, sql: str) -> Answer:
        """Executes a query. Raises `InvalidOption` for what is no valid one."""
        with _errors_of_duckdb():
            return Answer(self._connection.execute(sql))


@contextlib.contextmanager
def _errors_of_duckdb() -> Iterator[None]:
    import duckdb

    try:
        yield
    except (
        duckdb.ParserException,
        duckdb.BinderException,
        duckdb.CatalogException,
        duckdb.InvalidInputException,
        duckdb.PermissionException,
    ) as error:
        raise InvalidOption(f"the query: {_first_line(error)}") from None
    except duckdb.Error as error:
        raise LogEngineError(f"the query: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
