"""The strongest directions of indexed photos as files that vector databases load.

The product of a direction with a class vector (`PhotoIndex.class_vectors`) is at most the score of
the photo; the largest product of its directions is close to it. A database that searches by inner
product therefore finds the photos of a class.
"""

import csv
import pathlib
from collections.abc import Iterator

import numpy as np

from biam_tf.errors import UserError
from biam_tf.files import replacing
from serving.indexing.nearest_photos import directions_of_shards
from serving.indexing.photo_index import PhotoIndex

_FIELDS = ("id", "photo", "direction")


def export_vectors(index: PhotoIndex, path: pathlib.Path, directions: int) -> int:
    """Writes the directions of all photos, shard after shard; shows progress on standard error.

    A `.parquet` file has the columns `id` (int64), `photo` (path relative to the photo folder),
    `direction` (int32, from 0) and `vector` (float32, fixed length). A `.npy` file has the vectors
    (n, d) float32 alone; `id`, which is the row, `photo` and `direction` are in a `.csv` file
    beside it.

    Args:
        index: the index.
        path: ends with `.parquet` or `.npy`.
        directions: number of directions of a photo, at most.

    Returns:
        n, the number of vectors.

    Raises:
        UserError: the ending is another, a package is missing, the index is damaged or stores
            features, or the files can't be written.
    """
    writers = {".parquet": _write_parquet, ".npy": _write_npy}
    if path.suffix.lower() not in writers:
        raise UserError(f"--export {path}: end the name with .parquet or .npy")
    writers[path.suffix.lower()](index, path, directions)
    return len(index) * _count(index, directions)


def _count(index: PhotoIndex, directions: int) -> int:
    h, w = index.manifest.grid
    return min(directions, h * w)


def _rows(
    index: PhotoIndex, directions: int
) -> Iterator[tuple[np.ndarray, list[tuple[int, str, int]]]]:
    """Yields the vectors (n, d) of each shard, and the fields of each."""
    for start, vectors, found in directions_of_shards(index, directions, "Writing"):
        count = found.shape[1]
        rows = np.repeat(np.arange(start, start + len(vectors)), count)
        places = np.tile(np.arange(count), len(vectors))
        fields = [
            (int(row) * count + int(place), index.photos[int(row)], int(place))
            for row, place in zip(rows, places, strict=True)
        ]
        yield found.reshape(-1, found.shape[2]), fields


def _write_npy(index: PhotoIndex, path: pathlib.Path, directions: int) -> None:
    shape = (len(index) * _count(index, directions), index.class_side.vector_size)
    with replacing(path) as partial, replacing(path.with_suffix(".csv")) as listed:
        with open(listed, "w", encoding="utf-8", newline="", errors="surrogateescape") as file:
            table = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
            writer = csv.writer(file)
            writer.writerow(_FIELDS)
            for vectors, fields in _rows(index, directions):
                table[fields[0][0] : fields[0][0] + len(fields)] = vectors
                writer.writerows(fields)
            table.flush()


def _write_parquet(index: PhotoIndex, path: pathlib.Path, directions: int) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"--export {path}: Parquet needs pyarrow (pip install 'biam-tf[import]'); a name that "
            "ends with .npy needs nothing"
        ) from error
    size = index.class_side.vector_size
    schema = pyarrow.schema(
        [
            ("id", pyarrow.int64()),
            ("photo", pyarrow.string()),
            ("direction", pyarrow.int32()),
            ("vector", pyarrow.list_(pyarrow.float32(), size)),
        ]
    )
    with replacing(path) as partial, parquet.ParquetWriter(partial, schema) as writer:
        for vectors, fields in _rows(index, directions):
            ids, photos, places = zip(*fields, strict=True)
            named = [photo.encode("utf-8", "backslashreplace").decode() for photo in photos]
            flat = pyarrow.array(vectors.reshape(-1), pyarrow.float32())
            own = pyarrow.FixedSizeListArray.from_arrays(flat, size)
            columns = [ids, named, places]
            arrays = [
                pyarrow.array(column, schema.field(place).type)
                for place, column in enumerate(columns)
            ]
            writer.write_table(pyarrow.Table.from_arrays([*arrays, own], schema=schema))
