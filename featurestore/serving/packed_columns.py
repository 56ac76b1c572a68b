"""What server and clients of the packed API share: its name, its types, and lists and maps in packed columns.

Of these a column has every cell's length, and the elements of all cells one after another:

    cells      ["a", "b"]   null   []   ["c"]          feature-major, as every matrix
    lengths             2      0    0       1
    values       a    b                     c          a map's values have `keys` beside them

Null and empty look alike here; statuses tell them apart. Nothing is repeated for a cell but its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from featurestore.core.spec import ValueType
from featurestore.errors import CorruptData
from featurestore.online.answer.schema import MAP_MATRICES, Collection, Matrix
from featurestore.serving._generated import lookup_pb2 as pb

SERVICE_NAME = "featurestore.v1.FeatureLookup"

PACKED_TYPES: dict[ValueType, pb.ValueType] = {
    ValueType.INT64: pb.ValueType.INT64,
    ValueType.FLOAT64: pb.ValueType.FLOAT64,
    ValueType.STRING: pb.ValueType.STRING,
    ValueType.BOOL: pb.ValueType.BOOL,
    ValueType.TIMESTAMP: pb.ValueType.TIMESTAMP,
    ValueType.INT64_LIST: pb.ValueType.INT64_LIST,
    ValueType.FLOAT64_LIST: pb.ValueType.FLOAT64_LIST,
    ValueType.STRING_LIST: pb.ValueType.STRING_LIST,
    ValueType.INT64_MAP: pb.ValueType.INT64_MAP,
    ValueType.FLOAT64_MAP: pb.ValueType.FLOAT64_MAP,
}
"""Types of values on the wire."""

VALUE_TYPES: dict[int, ValueType] = {packed: value for value, packed in PACKED_TYPES.items()}
"""And back."""


def pack_collections(response: pb.LookupResponse, matrix: Matrix, cells: Sequence[Any]) -> None:
    """Fill the column of one matrix; None is null.

    Args:
        response: whose column of the matrix's name is filled.
        matrix: one of COLLECTION_MATRICES.
        cells: S x N collections, feature-major.
    """
    packed: Any = getattr(response, matrix.value)
    filled: list[Any] = [cell for cell in cells if cell]
    packed.lengths.extend([len(cell) if cell else 0 for cell in cells])
    if matrix in MAP_MATRICES:
        packed.keys.extend(list(chain.from_iterable(filled)))
        packed.values.extend([value for cell in filled for value in cell.values()])
    else:
        packed.values.extend(list(chain.from_iterable(filled)))


def unpack_collections(response: pb.LookupResponse, matrix: Matrix, cell_count: int) -> tuple[Collection, ...]:
    """The cells of one matrix, empty where null.

    Args:
        response: a server's answer.
        matrix: one of COLLECTION_MATRICES.
        cell_count: how many there must be.

    Raises:
        CorruptData: lengths, keys and values do not fit together.
    """
    packed: Any = getattr(response, matrix.value)
    lengths, values = list(packed.lengths), list(packed.values)
    keys = list(packed.keys) if matrix in MAP_MATRICES else values
    if len(lengths) != cell_count or not sum(lengths) == len(values) == len(keys):
        raise CorruptData(
            f'the column "{matrix.value}" of the answer does not fit together',
            detail=f"It has {len(lengths)} lengths, of {cell_count}, that add up to {sum(lengths)}, "
            f"{len(values)} values and {len(keys)} keys.",
        )
    if matrix in MAP_MATRICES:
        return tuple(dict(zip(keys[span], values[span], strict=True)) for span in _spans(lengths))
    return tuple(values[span] for span in _spans(lengths))


def _spans(lengths: Sequence[int]) -> Iterator[slice]:
    """Where each cell's elements are."""
    begin = 0
    for length in lengths:
        yield slice(begin, begin + length)
        begin += length
