"""A batch's tables: scans.parquet with one row per recording, findings.parquet with one per finding.

The order is that of the files' paths, so that the same archive, code and profile give the same tables whoever did the
work; only `seconds` and `worker` tell of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from scanner_io import disk
from scanner_io.errors import StorageError
from scanner_io.model import Box, Finding, Intervals
from scanner_io.storage import settle, sync_folder

if TYPE_CHECKING:
    from .batch import Row
    from .batch_ledger import Ledger

_UTC = pa.timestamp("us", tz="UTC")  # of ns many readers make nothing
_WORDS = pa.list_(pa.string())

Column = tuple[str, Any, Callable[["Row"], Any]]

SCANS: list[Column] = [
    ("file", pa.string(), lambda r: r.file),
    ("state", pa.string(), lambda r: r.state),
    ("scan_id", pa.string(), lambda r: r.scan_id or None),
    ("lane", pa.string(), lambda r: r.lane or None),
    ("start_utc", _UTC, lambda r: None if r.start_utc_ns is None else r.start_utc_ns // 1000),
    ("simulated", pa.bool_(), lambda r: None if r.result is None else r.simulated),
    ("content_sha256", pa.string(), lambda r: r.content_sha256 or None),
    ("outcome", pa.string(), lambda r: r.outcome),
    ("load", pa.string(), lambda r: None if r.result is None else r.result.load),
    ("p_value", pa.float64(), lambda r: r.result.standing.p_value if r.result and r.result.standing else None),
    ("findings", pa.int32(), lambda r: 0 if r.result is None else len(r.result.findings)),
    ("reasons", _WORDS, lambda r: [] if r.result is None else list(r.result.reasons)),
    ("quality", _WORDS, lambda r: [] if r.result is None else [str(q) for q in r.result.quality]),
    ("gamma_alarm", pa.bool_(), lambda r: None if r.result is None else r.result.gamma_alarm),
    ("neutron_alarm", pa.bool_(), lambda r: None if r.result is None else r.result.neutron_alarm),
    ("gamma_intervals", pa.int32(), lambda r: None if r.result is None else r.result.gamma_intervals),
    ("alarm_intervals", pa.int32(), lambda r: None if r.result is None else r.result.alarm_intervals),
    ("profile", pa.string(), lambda r: None if r.result is None else r.result.profile),
    ("code_version", pa.string(), lambda r: None if r.result is None else r.result.code_version),
    ("stored_outcome", pa.string(), lambda r: r.stored_outcome),
    ("same_as_stored", pa.bool_(), lambda r: r.same_as_stored),
    ("error", pa.string(), lambda r: r.error),
    ("seconds", pa.float64(), lambda r: r.seconds),
    ("worker", pa.string(), lambda r: r.worker or None),
]  # fmt: skip

FINDINGS: list[tuple[str, Any, Callable[[Row, int, Finding], Any]]] = [
    ("file", pa.string(), lambda r, n, f: r.file),
    ("scan_id", pa.string(), lambda r, n, f: r.scan_id),
    ("number", pa.int32(), lambda r, n, f: n),
    ("kind", pa.string(), lambda r, n, f: f.kind),
    ("tier", pa.string(), lambda r, n, f: f.tier),
    ("score", pa.float64(), lambda r, n, f: f.score),
    ("p_value", pa.float64(), lambda r, n, f: f.p_value),
    ("first_column", pa.int32(), lambda r, n, f: f.where.first_column if isinstance(f.where, Box) else None),
    ("end_column", pa.int32(), lambda r, n, f: f.where.end_column if isinstance(f.where, Box) else None),
    ("first_channel", pa.int32(), lambda r, n, f: f.where.first_channel if isinstance(f.where, Box) else None),
    ("end_channel", pa.int32(), lambda r, n, f: f.where.end_channel if isinstance(f.where, Box) else None),
    ("first_interval", pa.int32(), lambda r, n, f: f.where.first if isinstance(f.where, Intervals) else None),
    ("end_interval", pa.int32(), lambda r, n, f: f.where.end if isinstance(f.where, Intervals) else None),
    ("reason", pa.string(), lambda r, n, f: f.reason),
]  # fmt: skip


class Written(NamedTuple):
    """How many findings there are, and how many scans whose stored result is another."""

    findings: int
    differ: int


def write_tables(ledger: Ledger, folder: Path) -> Written:
    """Write both tables of what the ledger holds, over older ones. Raises StorageError."""
    from .batch import Row

    of_scans = pa.schema([(name, kind) for name, kind, _ in SCANS])
    of_findings = pa.schema([(name, kind) for name, kind, _ in FINDINGS])
    findings = differ = 0
    decoder = msgspec.json.Decoder(Row)
    with (
        _table(folder / "scans.parquet", of_scans) as scans_table,
        _table(folder / "findings.parquet", of_findings) as findings_table,
    ):
        for page in ledger.rows():
            rows = [decoder.decode(encoded) for encoded in page]
            found = [(r, n, f) for r in rows if r.result for n, f in enumerate(r.result.findings)]
            scans_table.write_table(
                pa.table([pa.array([take(r) for r in rows], kind) for _, kind, take in SCANS], schema=of_scans)
            )
            findings_table.write_table(
                pa.table([pa.array([take(*f) for f in found], kind) for _, kind, take in FINDINGS], schema=of_findings)
            )
            findings += len(found)
            differ += sum(r.same_as_stored is False for r in rows)
    return Written(findings, differ)


@contextmanager
def _table(path: Path, schema: Any) -> Iterator[Any]:
    """Give the writer of a table that appears under its name once it is whole."""
    part = path.with_name(f"{path.name}.part")
    try:
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            yield writer
        settle(part)
        disk.io().rename(part, path)
        sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"{path}: {error}; make room on its disk and run the same command again") from error
