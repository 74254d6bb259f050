"""The record of a run: one HDF5 file that the capture half writes and the analysis half reads.

This package imports no torch; h5py and pandas only when they are needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuralmech.record.schema import FAILURE_FILE, FILE_NAME, SCHEMA_VERSION, RecordError

if TYPE_CHECKING:
    from neuralmech.record.background import BackgroundWriter
    from neuralmech.record.charges import Charges
    from neuralmech.record.opening import open_record
    from neuralmech.record.reader import Record
    from neuralmech.record.writer import RecordWriter

_LAZY = {
    "BackgroundWriter": "background",
    "Charges": "charges",
    "Record": "reader",
    "open_record": "opening",
    "RecordWriter": "writer",
}

__all__ = [
    "FAILURE_FILE",
    "FILE_NAME",
    "SCHEMA_VERSION",
    "BackgroundWriter",
    "Charges",
    "Record",
    "RecordError",
    "RecordWriter",
    "open_record",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"neuralmech.record.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'neuralmech.record' has no attribute {name!r}")
