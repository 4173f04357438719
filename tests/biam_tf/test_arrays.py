"""Files of arrays that claim more than they hold."""

import ast
import gzip
import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from source_tree import PACKAGES, modules

from biam_tf.arrays import open_npz
from biam_tf.embeddings.files import read_arrays, read_note, read_word_vectors
from biam_tf.errors import UserError

pytestmark = pytest.mark.unit


def write_claim(path, **shapes):
    """Writes arrays of zeros by their headers alone, each with a megabyte of them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, (descr, shape) in shapes.items():
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": descr, "fortran_order": False, "shape": shape}
            )
            archive.writestr(f"{key}.npy", header.getvalue() + bytes(1 << 20))


@pytest.mark.parametrize(
    ("descr", "shape"), [("<f4", (10_000_000, 300)), ("<U2000000", (2000,)), ("|S1", (10**18,))]
)
def test_a_small_file_of_large_arrays_is_refused_before_they_are_read(tmp_path, descr, shape):
    path = tmp_path / "classes.npz"
    write_claim(path, names=("<U1", (1,)), embeddings=(descr, shape))
    for read in (read_arrays, lambda path: open_npz(path).__enter__()):
        with pytest.raises(UserError, match=r"classes\.npz: .* would unpack to [0-9.]+ GB"):
            read(path)
    assert read_note(path) is None


def test_the_sizes_of_all_arrays_count_together(tmp_path):
    path = tmp_path / "many.npz"
    write_claim(path, **{f"part{n}": ("<f4", (20_000_000,)) for n in range(8)})
    with pytest.raises(UserError, match=r"would unpack to (0\.6 GB|640\.0 MB)"):
        with open_npz(path):
            pass


def test_real_embeddings_are_read(tmp_path):
    rng = np.random.default_rng(0)
    names = np.array([f"class {n}" for n in range(5000)])
    embeddings = rng.normal(size=(5000, 50)).astype(np.float32)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "real.npz", names=names, embeddings=embeddings)
        arrays = read_arrays(tmp_path / "real.npz")
        np.testing.assert_array_equal(arrays["embeddings"], embeddings)
        assert arrays["names"].tolist() == names.tolist()
        with open_npz((tmp_path / "real.npz").read_bytes()) as file:
            np.testing.assert_array_equal(file["embeddings"], embeddings)


def test_a_header_that_lies_is_an_error(tmp_path):
    path = tmp_path / "lie.npz"
    write_claim(path, names=("<U1", (1,)), embeddings=("<f4", (-5, 3)))
    with pytest.raises(UserError, match=r"lie\.npz"):
        read_arrays(path)
    write_claim(path, names=("<U1", (1,)), embeddings=("<f4", (1000, 300)))
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("embeddings.npy").file_size > 1 << 20
    with pytest.raises(UserError, match=r"lie\.npz"):
        read_arrays(path)  # it claims more than it holds


def test_a_packed_line_without_end_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "vectors.txt.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"dog 1 2\ncat 1 2\n")
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"line 3: is longer than 16 MB"):
        read_word_vectors(path, {"dog"})
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_no_other_module_opens_files_of_arrays():
    # These read single arrays of their own, memory-mapped or kept between steps.
    allowed = {"biam_tf.arrays", "serving.indexing.manifest", "training.reproduction.entries"}
    callers = {
        module.name
        for module in modules().values()
        if module.package in PACKAGES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "np.load"
    }
    assert callers <= allowed
