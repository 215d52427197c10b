"""Timelines in files: NPZ or Parquet, whole or not at all."""

import base64
import io
import os
import pathlib
import secrets
import typing
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from async_optax.timelines.sources import existing_file, import_parquet

if typing.TYPE_CHECKING:
    from async_optax.timelines.timeline import Timeline

_SCHEMA, _VERSION = "async_optax.timeline", 1
_ROWS = ("worker", "read_version", "version", "start_time", "time")
_COLUMNS = (*_ROWS, "weight", "accepted", "commit")
_PHASES = tuple(f"phases.{name}" for name in ("begin", "compute", "upload", "sent"))
_LOST = tuple(f"lost.{name}" for name in ("worker", "start_time", "stop_time", "reason"))
_ABSENCES = tuple(f"absences.{name}" for name in ("worker", "start_time", "stop_time"))
_MADE_FOR = ("made_for.kind", "made_for.size")
_REQUIRED = {*_COLUMNS, *_LOST, "num_workers", "end_time"}
_OPTIONAL = ({*_PHASES}, {"token"}, {*_ABSENCES}, {*_MADE_FOR})  # together or not at all
_LARGEST = 2**31 - 1  # bytes of metadata: it carries the lost jobs


def save_timeline(timeline: "Timeline", path: str | os.PathLike[str]) -> None:
    """Writes a timeline to ``path``, all of it or, if something fails, nothing.

    NPZ holds an array per column, ``phases.begin`` and the like for what is nested, and the scalars
    ``num_workers`` and ``end_time``. Parquet holds a row per arrival; what has another length is an
    NPZ in base64 in the metadata of the file's schema, under ``rest``. Both name the ``schema`` and
    its ``schema_version``.
    """
    target = pathlib.Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} for {target.name}")
    write = _format(target)[0]
    arrays = _arrays(timeline)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file, arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def load_fields(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the fields of the timeline in a file, those that are tables as mappings."""
    source = existing_file(path)
    read = _format(source)[1]
    with source.open("rb") as file:
        try:
            arrays = read(file)
        except ImportError:
            raise
        except Exception as error:  # a damaged file may break its reader anywhere
            raise ValueError(f"{source} is damaged, or not a {source.suffix} file: {error}") from (
                error
            )
    schema, version = arrays.pop("schema", None), arrays.pop("schema_version", None)
    if str(schema) != _SCHEMA:
        found = "no schema" if schema is None else f"the schema {schema}"
        raise ValueError(f"{source} is not a timeline: it has {found}, not {_SCHEMA}")
    if str(version) != str(_VERSION):
        raise ValueError(
            f"{source} is a timeline of schema_version {version}; this program reads {_VERSION}"
        )
    further = arrays.keys() - _REQUIRED
    for group in _OPTIONAL:
        if group <= further:
            further -= group
    if further or _REQUIRED - arrays.keys():
        missing = ", ".join(sorted(_REQUIRED - arrays.keys())) or "nothing"
        raise ValueError(
            f"{source} is not a whole timeline: {missing} is missing, and "
            f"{', '.join(sorted(further)) or 'nothing'} is left over"
        )
    fields: dict[str, Any] = {"phases": {}, "absences": {}, "lost": {}, "made_for": {}}
    for name, array in arrays.items():
        outer, _, inner = name.rpartition(".")
        (fields[outer] if outer else fields)[inner] = array
    fields |= {name: fields[name] or None for name in ("phases", "absences", "made_for")}
    fields |= {"num_workers": int(arrays["num_workers"]), "end_time": float(arrays["end_time"])}
    return fields


def _arrays(timeline: "Timeline") -> dict[str, np.ndarray]:
    arrays = {name: getattr(timeline, name) for name in _COLUMNS}
    for table, names in (
        (timeline.phases, _PHASES),
        (timeline.absences, _ABSENCES),
        (timeline.lost, _LOST),
        (timeline.made_for, _MADE_FOR),
    ):
        if table is not None:
            arrays |= {name: np.asarray(getattr(table, name.split(".")[1])) for name in names}
    if timeline.token is not None:
        arrays["token"] = timeline.token
    return arrays | {
        "num_workers": np.asarray(timeline.num_workers, np.int64),
        "end_time": np.asarray(timeline.end_time, np.float64),
    }


def _write_npz(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    np.savez(file, allow_pickle=False, schema=_SCHEMA, schema_version=_VERSION, **arrays)


def _read_npz(file: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        bad = archive.testzip()  # NumPy does not look where an array ends early
    if bad is not None:
        raise ValueError(f"the checksum of {bad} is wrong")
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _write_parquet(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    pyarrow, parquet = import_parquet()
    rows = {name: arrays[name] for name in (*_COLUMNS, *_PHASES, "token") if name in arrays}
    rest = io.BytesIO()
    np.savez_compressed(
        rest, allow_pickle=False, **{k: v for k, v in arrays.items() if k not in rows}
    )
    metadata = {"schema": _SCHEMA, "schema_version": str(_VERSION)}
    table = pyarrow.table(rows).replace_schema_metadata(
        metadata | {"rest": base64.b64encode(rest.getvalue())}
    )
    parquet.write_table(table, file, write_page_checksum=True)


def _read_parquet(file: BinaryIO) -> dict[str, Any]:
    _, parquet = import_parquet()
    table = parquet.read_table(
        file, page_checksum_verification=True, thrift_string_size_limit=_LARGEST
    )
    metadata = table.schema.metadata or {}
    arrays: dict[str, Any] = {
        name: metadata[name.encode()].decode()
        for name in ("schema", "schema_version")
        if name.encode() in metadata
    }
    arrays |= {name: np.array(table[name].to_numpy()) for name in table.column_names}
    if b"rest" in metadata:
        arrays |= _read_npz(io.BytesIO(base64.b64decode(metadata[b"rest"], validate=True)))
    return arrays


_Format = tuple[Callable[[BinaryIO, dict[str, np.ndarray]], None], Callable[[BinaryIO], Any]]
_FORMATS: dict[str, _Format] = {
    ".npz": (_write_npz, _read_npz),
    ".parquet": (_write_parquet, _read_parquet),
}


def _format(path: pathlib.Path) -> _Format:
    if path.suffix not in _FORMATS:
        raise ValueError(f"path must end in .npz or .parquet, got {path}")
    return _FORMATS[path.suffix]
