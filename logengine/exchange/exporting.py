"""Writes records to files for other programs: NDJSON, also compressed, CSV, Parquet.

Each record has the form that `logengine cat --format json` prints, with its stream and number.
"""

import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from logengine.disk.atomic import AtomicWriter
from logengine.errors import IncompleteExport, InvalidOption, NotInstalled
from logengine.format.compression import FRAME_BYTES, compress_lines
from logengine.reading import Problem
from logengine.rendering.comma_separated import exported_lines

FORMATS = ("ndjson", "gzip", "zstd", "csv", "parquet")
_FORMATS_OF_SUFFIXES = {
    "": "ndjson",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".gz": "gzip",
    ".zst": "zstd",
    ".csv": "csv",
    ".parquet": "parquet",
}
_GZIP_LEVEL = 6
_GZIP_WINDOW = 31  # the largest, in a gzip container (zlib's manual, deflateInit2)
_LEVEL = 3
# For a file that exists only until DuckDB has read it.
TEMPORARY_LEVEL = 1
# Longer than any stored line, unless max_record was raised to this.
LINE_BYTES_MAX = 128 * 1024 * 1024

# Only the envelope's fields get columns. Senders' fields have no schema: a key may occur twice, or
# be a number in one record and a string in another. A new column is the last one, in every format.
_QUERY = """
    COPY (
        SELECT
            json->>'$._stream' AS _stream,
            CAST(json->>'$._seq' AS BIGINT) AS _seq,
            CAST(json->>'$._ts' AS TIMESTAMPTZ) AS _ts,
            CAST(json->>'$._pid' AS BIGINT) AS _pid,
            CAST(json->>'$._uid' AS BIGINT) AS _uid,
            CAST(json->>'$._gid' AS BIGINT) AS _gid,
            json->>'$._comm' AS _comm,
            json->>'$._unit' AS _unit,
            json->>'$._user_unit' AS _user_unit,
            json AS record,
            json->>'$._addr' AS _addr,
            json->>'$._file' AS _file
        FROM read_ndjson_objects($lines, compression = 'zstd', maximum_object_size = $bytes_max)
    ) TO {target} (FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false)
"""


def zstd_frames(lines: Iterable[bytes], level: int = _LEVEL) -> Iterator[bytes]:
    """Compresses `lines` to frames of about a mebibyte. Each piece of input ends with a newline."""
    gathered: list[bytes] = []
    size = 0
    for piece in lines:
        gathered.append(piece)
        size += len(piece)
        if size >= FRAME_BYTES:
            yield from (frame.content for frame in compress_lines(gathered, level))
            gathered, size = [], 0
    yield from (frame.content for frame in compress_lines(gathered, level))


def gzip_pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Compresses `lines` to one gzip member."""
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    for piece in lines:
        yield compressor.compress(piece)
    yield compressor.flush()


def format_of_name(path: Path) -> str:
    """Returns the format that the suffix of `path` says. Raises `InvalidOption` for another one."""
    suffix = path.suffix.lower()
    form = _FORMATS_OF_SUFFIXES.get(suffix)
    if form is None:
        known = ", ".join(each for each in _FORMATS_OF_SUFFIXES if each)
        raise InvalidOption(
            f"{path}: there is no format for {suffix}; expected {known}, or --format"
        )
    if form in _COMPRESSED:
        inner = Path(path.stem).suffix.lower()
        if _FORMATS_OF_SUFFIXES.get(inner, "ndjson") != "ndjson":
            raise InvalidOption(
                f"{path}: what is compressed to {suffix} is NDJSON, not {inner}; expected "
                f".ndjson{suffix}, or --format"
            )
    return form


def converted(lines: Iterable[bytes], form: str) -> Iterable[bytes]:
    """Returns `lines`, as accepted by `zstd_frames`, in a format other than Parquet."""
    return _CONVERSIONS[form](lines)


_COMPRESSED = {"gzip": gzip_pieces, "zstd": zstd_frames}
_CONVERSIONS: dict[str, Callable[[Iterable[bytes]], Iterable[bytes]]] = {
    "ndjson": lambda lines: lines,
    "csv": exported_lines,
    **_COMPRESSED,
}


class Missing:
    """Counts the records that were selected and cannot be exported, by the problems of a reading.

    Records that the stream itself reports as gone, as after `repair`, are not missing.
    """

    def __init__(self) -> None:
        self._unread = 0
        self._removed = 0

    def note(self, problem: Problem) -> None:
        """Counts a problem, as `on_problem` of a reading gets it."""
        self._unread += not problem.expected
        self._removed += problem.gone is not None and problem.gone.reason == "removed"

    def check(self, path: Path) -> None:
        """Raises `IncompleteExport` if `path` would lack a record."""
        if not (self._unread or self._removed):
            return
        advice = "`logengine repair` keeps what is left of damaged files; " if self._unread else ""
        raise IncompleteExport(
            f"{path} is not written: it would lack the records named above; "
            f"{advice}--partial writes the rest"
        )


def export_file(
    lines: Iterable[bytes], path: Path, form: str, *, missing: Missing | None = None
) -> None:
    """Writes `lines`, as accepted by `zstd_frames`, to a file: whole or not at all.

    Durable on return. With `missing`, which is complete once `lines` ends, the file is written only
    if nothing is missing. Raises `AtomicWriteError`, `IncompleteExport`, and `NotInstalled` for
    Parquet without DuckDB.
    """
    if form == "parquet":
        _require_duckdb()
    with AtomicWriter(path, "wb", buffering=0) as writer:
        if form == "parquet":
            _write_parquet(lines, writer)
        else:
            for piece in converted(lines, form):
                writer.write(piece)
        if missing is not None:
            missing.check(path)


def _require_duckdb() -> None:
    try:
        import duckdb  # noqa: F401
    except ImportError:
        raise NotInstalled(
            "Parquet is written by DuckDB, which is not installed; "
            "pip install 'logengine[parquet]', or choose --format zstd"
        ) from None


def _write_parquet(lines: Iterable[bytes], writer: AtomicWriter) -> None:
    import duckdb

    assert writer.temp_path is not None
    with tempfile.TemporaryDirectory(
        prefix=".logengine-export-", dir=str(writer.directory)
    ) as temporary:
        source = os.path.join(temporary, "lines.ndjson.zst")
        with open(source, "wb") as file:
            file.writelines(zstd_frames(lines, TEMPORARY_LEVEL))
        with duckdb.connect(config={"threads": 2, "temp_directory": temporary}) as connection:
            # DuckDB writes to the writer's open temp, which is then synced and renamed.
            target = "'{}'".format(writer.temp_path.replace("'", "''"))
            connection.execute(
                _QUERY.format(target=target), {"lines": source, "bytes_max": LINE_BYTES_MAX}
            )
