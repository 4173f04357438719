"""Photos of every kind through every door: `python -m benchmarks.photo_formats`.

Draws one photo of each kind and passes it through everything that reads photos: the description of
a data set, imports, training, evaluation, the index, the demo page, the client and the graph of a
server. What each has read is compared with the drawn pixels or with Pillow's. The model of index,
client and server returns the pixels that it sees, in place of response maps.

The exit status is 1 if a door shows wrong pixels, refuses a photo that is listed as readable or
accepts one that is not.
"""

import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from benchmarks.shared.benchmark_command import benchmark_command
from benchmarks.shared.photo_kinds import PhotoKind, photo_kinds
from biam_tf.errors import UserError
from training.tables.table import Table

SIDE = 24  # of the resized photos
# float16 in an index, and 8 bits of gray in a description.
ROUNDED = 0.6

Door = Callable[[PhotoKind, pathlib.Path], tuple[np.ndarray, np.ndarray]]


class Refused(Exception):
    """A door did not accept a photo."""


def main(argv=None) -> int:
    return benchmark_command("photo_formats", __doc__, measure, argv)


def measure(smoke: bool = False) -> list[Table]:
    """Returns the table of formats and doors.

    Raises:
        UserError: a door reads a photo wrongly.
    """
    kinds = [kind for kind in photo_kinds() if not smoke or not kind.file.startswith("turned")]
    with tempfile.TemporaryDirectory() as name, _doors(pathlib.Path(name)) as doors:
        results = {
            kind.name: {
                door: _verdict(kind, read, pathlib.Path(name)) for door, read in doors.items()
            }
            for kind in kinds
        }
    wrong = [
        f"{kind}, {door}: {verdict}"
        for kind, of_kind in results.items()
        for door, verdict in of_kind.items()
        if verdict not in ("yes", "refused", "as PNG")
    ]
    if wrong:
        raise UserError("photos are read wrongly:\n" + "\n".join(wrong))
    return [_table(kinds, results)]


def _verdict(kind: PhotoKind, read: Door, folder: pathlib.Path) -> str:
    path = folder / kind.file
    path.write_bytes(kind.contents)
    try:
        found, right = read(kind, path)
    except Refused as reason:
        if kind.problem is not None:
            return "refused" if kind.problem in str(reason) else f"refused: {reason}"
        if str(reason) == "format":  # a graph does not decode it
            return "as PNG"
        return f"refused: {reason}"
    if kind.problem is not None:
        return "accepted, but it is broken"
    if found.shape != right.shape:
        return f"{found.shape}, not {right.shape}"
    difference = float(np.abs(found.astype(np.float64) - right).max())
    allowed = kind.tolerance + ROUNDED
    return "yes" if difference <= allowed else f"{difference:.1f} of 255 off"


def _table(kinds: Sequence[PhotoKind], results: Mapping[str, Mapping[str, str]]) -> Table:
    """Joins the rows of the eight orientations of each format."""
    rows: dict[str, list[str]] = {}
    for kind in kinds:
        name = kind.name.partition(", orientation")[0]
        name += ", each EXIF orientation, either byte order" if "turned" in kind.file else ""
        rows[name] = list(results[kind.name].values())
    doors = next(iter(results.values()))
    return Table("", ["photo", *doors], [[name, *cells] for name, cells in rows.items()])


def _resized(pixels: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    size = (SIDE, SIDE)
    return tf.image.resize(pixels.astype(np.float32), size, "bilinear", antialias=True).numpy()


def _right(kind: PhotoKind) -> np.ndarray:
    return np.zeros((1, 1, 3)) if kind.pixels is None else kind.pixels


@contextlib.contextmanager
def _doors(folder: pathlib.Path) -> Iterator[dict[str, Door]]:
    """Yields everything that reads photos, each with what it has read and what is right."""
    import tensorflow as tf

    from biam_tf.photos import format_of, open_photo
    from serving.demo_page.photo_files import open_photo_file, read_picture
    from serving.indexing.photo_index import IndexedPhoto
    from serving.indexing.region_embedder import RegionEmbedder
    from serving.rpc.tagging_client import TaggingClient, TaggingError
    from serving.rpc.tagging_server import ServerSettings, TaggingServer
    from training.data.imports.photo_collection import photo_problem
    from training.data.input.photo_reader import read_whole_photo
    from training.data.input.sources import PhotoSource
    from training.description.perceptual_hash import gray_picture
    from training.description.photo_scan import examine_photo

    model = _pixel_model(folder / "model")
    embedder = RegionEmbedder(model)
    server = TaggingServer(folder / "model", ServerSettings(port=0, drain_seconds=0.1))

    def describe(kind: PhotoKind, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
        photo = examine_photo(path)
        if photo.problem:
            raise Refused(photo.problem)
        right = _right(kind)
        if photo.size != right.shape[1::-1]:
            return np.zeros((*photo.size[::-1], 3)), right
        gray = np.asarray(gray_picture(open_photo(path, "L").image), np.float64)
        from PIL import Image

        return gray, np.asarray(gray_picture(Image.fromarray(right).convert("L")), np.float64)

    def take(kind: PhotoKind, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
        problem = photo_problem(path.read_bytes())
        if problem:
            raise Refused(problem)
        return np.asarray(open_photo(path).image), _right(kind)

    def train(kind: PhotoKind, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
        from training.data.input.photo_reader import why_unreadable

        problem = why_unreadable(path.parent, path.name)
        if problem:
            raise Refused(problem)
        return read_whole_photo(path.parent, tf.constant(path.name)).numpy(), _right(kind)

    def evaluate(kind: PhotoKind, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
        try:
            source = PhotoSource(path.parent, [path.name], SIDE, "memory")
        except UserError as error:
            raise Refused(error) from error
        batch = next(source.evaluation_batches(1).as_numpy_iterator())
        return batch["images"][0], _resized(_right(kind))

    def index(kind: PhotoKind, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
        photo = IndexedPhoto(path.name, 0, 0)
        found, broken = embedder.embed_readable(path.parent, [photo], False)
        if broken:
            raise Refused(broken[photo])
        pixels = 255 * found[0].astype(np.float64).reshape(SIDE, SIDE, 3)
        return pixels, _resized(_right(kind))

    def page(kind: PhotoKind, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
        right = _right(kind)
        try:
            contents = open_photo_file(path).read()
            shown = np.asarray(read_picture(path, max(right.shape[:2])))
        except UserError as error:
            raise Refused(error) from error
        if shown.shape != right.shape or np.abs(shown - right.astype(float)).max() > kind.tolerance:
            return shown, right  # what people see is wrong
        return _asked(lambda: client.explain(contents, class_embeddings=np.eye(3))), _resized(right)

    def send(kind: PhotoKind, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
        return _asked(lambda: client.explain(path, class_embeddings=np.eye(3))), _resized(
            _right(kind)
        )

    def serve(kind: PhotoKind, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
        form = format_of(kind.contents)
        if kind.problem is None and form in ("TIFF", "HEIF", "AVIF", "JXL"):
            raise Refused("format")
        return _asked(lambda: embedder.score([kind.contents], np.eye(3))), _resized(_right(kind))

    def _asked(ask: Callable[[], tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        try:
            return 255 * ask()[1][0]
        except (TaggingError, UserError, tf.errors.InvalidArgumentError) as error:
            raise Refused(error) from error

    with server, TaggingClient(server.address) as client:
        yield {
            "describe": describe,
            "import": take,
            "train": train,
            "evaluate": evaluate,
            "index": index,
            "page": page,
            "client": send,
            "server": serve,
        }


def _pixel_model(folder: pathlib.Path) -> pathlib.Path:
    """Writes a model whose response maps for the rows of an identity matrix are its pixels."""
    import tensorflow as tf

    from biam_tf.photos import MAX_PIXELS
    from serving.graph.photo_decoding import photo_decoder
    from serving.rpc.version_folders import PHOTOS_FILE

    decode = photo_decoder(SIDE, MAX_PIXELS)

    class PixelModel(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec((None,), tf.string, name="images"),
                tf.TensorSpec((None, None), tf.float32, name="class_embeddings"),
            ],
            autograph=False,
        )
        def explain(self, images, class_embeddings):
            maps = tf.einsum("bhwd,cd->bhwc", decode(images) / 255, class_embeddings)
            return {"scores": tf.reduce_mean(maps, (1, 2)), "response_maps": maps}

    model = PixelModel()
    version = folder / "1"
    tf.saved_model.save(
        model, version, {"explain": model.explain, "serving_default": model.explain}
    )
    (version / PHOTOS_FILE).parent.mkdir()
    (version / PHOTOS_FILE).write_text('{"orientation": "follow"}')
    np.savez(version / "assets.extra" / "vocabulary.npz", embeddings=np.eye(3, dtype=np.float32))
    return version


if __name__ == "__main__":
    sys.exit(main())
