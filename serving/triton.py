"""Writes a model repository for Triton: `python -m serving.triton RUN REPOSITORY`."""

import argparse
import json
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from biam_tf.files import replacing, write_text
from serving import DEFAULT_MODEL_NAME
from serving.graph.onnx_file import export_onnx, require_packages

if TYPE_CHECKING:
    import onnx

    from biam_tf.runs import TrainedRun

DESCRIPTION = """\
Writes a trained run as two models of NVIDIA Triton Inference Server:

  NAME         takes encoded photos and class names and returns scores (and probabilities and
               decisions, if the run has thresholds). Python backend.
  NAME_scores  takes pixels and class embeddings. ONNX Runtime backend, on a GPU if there is one.

A request without class names is answered for the classes of the run. The ONNX file is run and
compared with the TensorFlow model before anything is kept. serving/deploy/Dockerfile.triton is an
image with the packages that NAME needs.
"""

EXAMPLES = """\
examples:
  python -m serving.triton runs/quickstart model-repository
  python -m serving.triton runs/mine model-repository --name birds --version 2
"""

MODEL = pathlib.Path(__file__).parent / "deploy" / "triton" / "model.py"
TYPES = {1: "TYPE_FP32"}  # onnx.TensorProto.FLOAT


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving.triton",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=pathlib.Path, help="folder of a trained run")
    parser.add_argument(
        "repository",
        metavar="REPOSITORY",
        type=pathlib.Path,
        help="folder of Triton's models; other models in it stay",
    )
    parser.add_argument(
        "--name",
        default=DEFAULT_MODEL_NAME,
        help=f"name of the model (default: {DEFAULT_MODEL_NAME})",
    )
    parser.add_argument(
        "--version", type=int, default=1, metavar="N", help="version of both models (default: 1)"
    )
    parser.add_argument(
        "--most-photos", type=int, default=64, metavar="N", help="per request (default: 64)"
    )
    parser.add_argument(
        "--most-classes", type=int, default=20_000, metavar="N", help="per request (default: 20000)"
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    from biam_tf.runs import RunPaths, load_run

    RunPaths(arguments.run).require_whole()  # before TensorFlow is imported
    require_packages()
    for option in ("version", "most_photos", "most_classes"):
        if getattr(arguments, option) < 1:
            raise UserError(f"--{option.replace('_', '-')}: use 1 or more")
    if not arguments.name.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"--name {arguments.name}: use letters, digits, - and _")
    run = load_run(arguments.run)
    scoring, tagging = f"{arguments.name}_scores", arguments.name
    version = str(arguments.version)
    for name in (scoring, tagging):
        if (arguments.repository / name / version).exists():
            raise UserError(
                f"{arguments.repository / name / version} exists; choose another --version"
            )

    folder = arguments.repository / scoring
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / version) as partial:
        partial.mkdir()
        differences = export_onnx(run, partial / "model.onnx")
        configuration = _scoring_configuration(scoring, partial / "model.onnx")
    write_text(folder / "config.pbtxt", configuration)

    folder = arguments.repository / tagging
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / version) as partial:
        partial.mkdir()
        _write_tagger(run, partial, scoring, arguments.most_photos, arguments.most_classes)
    calibrated = run.thresholds is not None
    write_text(folder / "config.pbtxt", _tagging_configuration(tagging, calibrated))

    print(f"{arguments.repository}: {tagging} and {scoring}, version {version}")
    for name, difference in differences.items():
        print(f"  {name}: largest difference of ONNX Runtime from TensorFlow {difference:.1e}")
    print(f"  tritonserver --model-repository={arguments.repository}")


def _write_tagger(
    run: "TrainedRun", folder: pathlib.Path, scoring: str, most_photos: int, most_classes: int
) -> None:
    facts = {
        "scoring_model": scoring,
        "image_size": run.image_size,
        "orientation": run.orientation,
        "most_photos": most_photos,
        "most_classes": most_classes,
    }
    write_text(folder / "facts.json", json.dumps(facts, indent=1) + "\n")
    run.vocabulary.save(folder / "vocabulary.npz")
    if run.thresholds is not None:
        write_text(folder / "thresholds.json", run.thresholds.to_json())
    shutil.copyfile(MODEL, folder / "model.py")


def _scoring_configuration(name: str, file: pathlib.Path) -> str:
    """Returns the configuration of the ONNX model, with the inputs and outputs of its file."""
    import onnx

    graph = onnx.load(str(file), load_external_data=False).graph
    inputs = [_tensor(value) for value in graph.input]
    outputs = [_tensor(value) for value in graph.output]
    return _configuration(name, "onnxruntime", inputs, outputs)


def _tagging_configuration(name: str, calibrated: bool) -> str:
    inputs = [
        ("images", "TYPE_STRING", [-1], False),
        ("class_names", "TYPE_STRING", [-1], True),
    ]
    outputs = [("scores", "TYPE_FP32", [-1, -1], False)]
    if calibrated:
        outputs += [
            ("probabilities", "TYPE_FP32", [-1, -1], False),
            ("present", "TYPE_BOOL", [-1, -1], False),
        ]
    return _configuration(name, "python", inputs, outputs)


def _tensor(value: "onnx.ValueInfoProto") -> tuple[str, str, list[int], bool]:
    tensor = value.type.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    return value.name, TYPES[tensor.elem_type], sizes, False


def _configuration(name: str, backend: str, inputs: list, outputs: list) -> str:
    """Returns a config.pbtxt; both photos and classes vary, so no axis is the batch."""

    def listed(kind: str, tensors: list) -> str:
        entries = []
        for tensor, dtype, sizes, optional in tensors:
            more = " optional: true" if optional else ""
            dims = ", ".join(map(str, sizes))
            entries.append(f'  {{ name: "{tensor}" data_type: {dtype} dims: [ {dims} ]{more} }}')
        return f"{kind} [\n" + ",\n".join(entries) + "\n]\n"

    return (
        f'name: "{name}"\nbackend: "{backend}"\nmax_batch_size: 0\n'
        + listed("input", inputs)
        + listed("output", outputs)
    )


if __name__ == "__main__":
    sys.exit(main())
