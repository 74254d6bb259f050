"""One family's charges in a record: signals that are read when they are sliced."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64, Shaped
from numpy.typing import NDArray

from neuralmech.record.safety import attribute, printable, remedy
from neuralmech.record.schema import NORMS_OF, RecordError
from neuralmech.words import first_line, table_of

INDEX = {"channel": np.int64, "partner": np.int64, "decay": np.float64, "rule": np.int64, "entries": np.float64}
INDEX |= {"rate_in": np.float64, "rate_out": np.float64}
BESIDES = ("frobenius", "lean", "parameters")  # datasets of a family that are no signals of its charges


class Checked:
    """A dataset whose damage is named when it is read."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.shape = dataset.shape

    def __getitem__(self, key: Any) -> Shaped[NDArray, ...]:
        try:
            return self._dataset[key]
        except (OSError, RuntimeError) as error:
            name, file = self._dataset.name, self._dataset.file.filename
            raise RecordError(f"{file} is damaged in {name} ({first_line(error)}); {remedy(Path(file))}") from None


class Signal:
    """A (rows, charges) dataset cut off at the committed rows; slicing reads from the file."""

    def __init__(self, dataset: h5py.Dataset, rows: int) -> None:
        self._dataset = Checked(dataset)
        self.shape = (rows, dataset.shape[1])

    def __getitem__(self, key: Any) -> Float64[NDArray, ...]:
        rows, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if rows is Ellipsis:
            rows = slice(None)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            return self._dataset[(slice(start, max(start, stop), step), *rest)]
        if not -self.shape[0] <= rows < self.shape[0]:
            raise IndexError(f"row {rows} is outside the {self.shape[0]} committed rows")
        return self._dataset[(rows % self.shape[0], *rest)]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self.shape[0]:,} rows × {self.shape[1]:,} columns in a file: slicing reads them>"


class Charges:
    """One family's charges: the signals as attributes, and what each column is."""

    def __init__(self, name: str, group: h5py.Group, rows: int) -> None:
        self.name = name
        self.is_translation = attribute(group, "form") == "linear"  # in the parameters: not the family of that name
        self._group = group
        self._rows = rows
        self.signals = tuple(k for k in group if not k.endswith("index") and k not in BESIDES)

    def __getattr__(self, signal: str) -> Signal:
        if signal.startswith("_") or signal not in self.signals:
            raise AttributeError(f"{self.name} charges have no signal {signal!r}; there are {', '.join(self.signals)}")
        found = vars(self)[signal] = Signal(self._group[signal], self._rows)  # found once, read block by block
        return found

    @cached_property
    def index(self) -> pd.DataFrame:
        """Site and channel of each column; for the entries of a matrix also the partner; see `FamilyLayout.index`."""
        raw = Checked(self._group["index"])[:]
        sites = [_text(name) for name in raw["site"]]
        there = [name for name in INDEX if name in (raw.dtype.names or ())]
        return pd.DataFrame({"site": sites, **{name: raw[name].astype(INDEX[name]) for name in there}})

    @cached_property
    def norm_sites(self) -> tuple[str, ...]:
        """Sites whose Frobenius norms are recorded, in the order of the columns of `frobenius`."""
        return tuple(_text(name) for name in self._group.get("frobenius_index", ()))

    @property
    def parameters(self) -> Signal:
        """Single parameters that the charges are made of, see `parameter_index`: (rows, parameters)."""
        return Signal(self._group["parameters"], self._rows)

    @cached_property
    def parameter_index(self) -> pd.DataFrame:
        """Name and flat entry of each recorded parameter, and the column of a charge that it is part of."""
        if "parameters_index" not in self._group:
            return pd.DataFrame({"name": [], "entry": [], "charge": []})
        raw = Checked(self._group["parameters_index"])[:]
        numbers = {name: raw[name].astype(np.int64) for name in ("entry", "charge")}
        return pd.DataFrame({"name": [_text(name) for name in raw["name"]], **numbers})

    @property
    def frobenius(self) -> Signal:
        """Frobenius norm of every matrix-valued charge, NaN in rows where it was not measured: (rows, sites)."""
        return Signal(self._group["frobenius"], self._rows)

    @cached_property
    def lean_sites(self) -> tuple[str, ...]:
        """Sites of which is recorded how far the rule leans on their generators, in the order of `lean`'s columns."""
        return tuple(_text(name) for name in self._group.get("lean_index", ()))

    @property
    def lean(self) -> Signal:
        """√[Σ(θᵀSv)²/Σ θᵀ|S|θ·vᵀ|S|v] of each site, NaN in rows where it was not measured: (rows, sites)."""
        return Signal(self._group["lean"], self._rows)

    def __len__(self) -> int:
        return self._group["index"].shape[0]

    def __repr__(self) -> str:
        if not self._group:
            return f"<{self.name} charges of a record that is closed>"
        counts = f"{len(self):,} at {self.index['site'].nunique():,} sites"
        return f"<{self.name} charges: {counts}, {self._rows:,} rows; signals: {', '.join(self.signals)}>"

    def _repr_html_(self) -> str:
        """For notebooks: a row for each site."""
        sites = self.index["site"].value_counts(sort=False) if self._group else {}
        return table_of(("site", "charges"), [(str(site), f"{n:,}") for site, n in sites.items()], repr(self))

    @property
    def steps(self) -> Int64[NDArray, " rows"]:
        """Step of each row."""
        return Checked(self._group.file["steps/step"])[: self._rows]

    def plot(self, signal: str = "value", lines: int = 8) -> Any:
        """A matplotlib ``Figure`` of a signal of some charges over the steps, spread evenly over the sites."""
        from neuralmech.record.plot import figure

        return figure(self, signal, lines)

    def to_xarray(self) -> Any:
        """All signals as an ``xarray.Dataset`` with the dimensions (row, charge); needs ``neuralmech[xarray]``.

        Raises
        ------
        ImportError
            If xarray is not installed.
        """
        try:
            from xarray import Dataset  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ImportError("to_xarray needs xarray; pip install 'neuralmech[xarray]'") from None
        places = {name: ("charge", self.index[name].to_numpy()) for name in self.index}
        return Dataset(
            {name: (("row", "charge"), getattr(self, name)[:]) for name in self.signals},
            coords={"step": ("row", self.steps), **places},
            attrs={"family": self.name},
        )

    def to_pandas(self, signal: str = "value") -> pd.DataFrame:
        """One signal as a frame: a row per recorded row, columns (site, channel)."""
        return pd.DataFrame(getattr(self, signal)[:], columns=pd.MultiIndex.from_frame(self.index))


class Norms:
    """Norms of each parameter tensor, row by row: those of its gradient, of itself and of its update, as `of` says.

    ``norms.gradient[a:b]`` reads from the file: (rows, tensors). g is the gradient as the rule sees it, u = (θ_k −
    θ_{k+1})/η.
    """

    gradient: Signal
    parameter: Signal
    update: Signal

    def __init__(self, group: h5py.Group, rows: int) -> None:
        self._group, self._rows = group, rows
        self.of = tuple(name for name in NORMS_OF if name in group)

    def __getattr__(self, of: str) -> Signal:
        if of.startswith("_") or of not in self.of:
            raise AttributeError(f"the record has no norms of {of!r}; there are those of {', '.join(self.of)}")
        return Signal(self._group[of], self._rows)

    @cached_property
    def index(self) -> pd.DataFrame:
        """``name``, ``shape`` and number of ``entries`` of each tensor."""
        raw = Checked(self._group["index"])[:]
        texts = {name: [_text(value) for value in raw[name]] for name in ("name", "shape")}
        return pd.DataFrame({**texts, "entries": raw["entries"].astype(np.int64)})

    def total(self, of: str = "gradient", rows: slice = slice(None)) -> Float64[NDArray, " rows"]:
        """The norm of the whole net."""
        return np.sqrt(np.square(getattr(self, of)[rows]).sum(axis=1))

    @property
    def steps(self) -> Int64[NDArray, " rows"]:
        """Step of each row."""
        return Checked(self._group.file["steps/step"])[: self._rows]

    def to_pandas(self, of: str = "gradient") -> pd.DataFrame:
        """One of them as a frame: a row per recorded row, a column for each tensor by its name."""
        return pd.DataFrame(getattr(self, of)[:], columns=self.index["name"])

    def __len__(self) -> int:
        return self._group["index"].shape[0]

    def __repr__(self) -> str:
        if not self._group:
            return "<norms of a record that is closed>"
        return f"<norms of {len(self):,} parameter tensors, {self._rows:,} rows; of: {', '.join(self.of)}>"


def _text(name: bytes | str) -> str:
    return printable(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name))
