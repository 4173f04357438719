"""A model of Triton's Python backend: photos and class names to scores, through an ONNX model.

`python -m serving.triton` copies this file into a model repository. It runs inside Triton, with the
packages of Dockerfile.triton: biam_tf without its dependencies, NumPy and Pillow; no TensorFlow.
"""

import json
import pathlib

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image

from biam_tf.errors import UserError
from biam_tf.photos import PhotoError, open_photo
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary


class TritonPythonModel:
    """Decodes photos, looks up class names, and asks the ONNX model beside it."""

    def initialize(self, args: dict[str, str]) -> None:
        folder = pathlib.Path(args["model_repository"], args["model_version"])
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        self.image_size: int = facts["image_size"]
        self.orientation = facts["orientation"]
        self.most_photos: int = facts["most_photos"]
        self.most_classes: int = facts["most_classes"]
        self.scoring_model: str = facts["scoring_model"]
        self.vocabulary = Vocabulary.load(folder / "vocabulary.npz")
        thresholds = folder / "thresholds.json"
        self.thresholds = Thresholds.load(thresholds) if thresholds.is_file() else None

    def execute(self, requests: list) -> list:
        """Returns one response per request; a request that can't be answered has an error."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        try:
            return pb_utils.InferenceResponse(output_tensors=self._outputs(request))
        except (UserError, ValueError) as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def _outputs(self, request) -> list:
        photos = pb_utils.get_input_tensor_by_name(request, "images").as_numpy()
        if not 0 < len(photos) <= self.most_photos:
            raise UserError(f"images: send 1 to {self.most_photos} photos, not {len(photos)}")
        classes = self._classes(pb_utils.get_input_tensor_by_name(request, "class_names"))
        pixels = np.stack([self._decode(photo, i) for i, photo in enumerate(photos)])
        scores = self._score(pixels, classes.embeddings.astype(np.float32))
        outputs = [pb_utils.Tensor("scores", scores)]
        if self.thresholds is not None:
            its = self.thresholds.for_classes(classes.names, classes.embeddings, self.vocabulary)
            probabilities = its.probabilities(scores).astype(np.float32)
            outputs.append(pb_utils.Tensor("probabilities", probabilities))
            outputs.append(pb_utils.Tensor("present", its.decide(scores)))
        return outputs

    def _classes(self, tensor) -> Vocabulary:
        """Returns the classes that a request names, those of the model if it names none."""
        if tensor is None or not len(values := tensor.as_numpy()):
            return self.vocabulary
        if len(values) > self.most_classes:
            raise UserError(f"class_names: send at most {self.most_classes}, not {len(values)}")
        try:
            names = [value.decode("utf-8") for value in values]
        except UnicodeDecodeError:
            raise UserError("class_names: not UTF-8") from None
        return self.vocabulary.subset(names)

    def _decode(self, contents: bytes, number: int) -> np.ndarray:
        """Returns a photo as float32 (S, S, 3), resized as in training, to rounding."""
        try:
            photo = open_photo(contents, orientation=self.orientation).image
        except PhotoError as error:
            raise UserError(f"images[{number}]: {error}") from None
        size = (self.image_size, self.image_size)
        # In floating point: resizing bytes would round twice.
        bands = [
            band.convert("F").resize(size, Image.Resampling.BILINEAR) for band in photo.split()
        ]
        return np.stack([np.asarray(band) for band in bands], axis=-1).clip(0, 255)

    def _score(self, pixels: np.ndarray, class_embeddings: np.ndarray) -> np.ndarray:
        request = pb_utils.InferenceRequest(
            model_name=self.scoring_model,
            requested_output_names=["scores"],
            inputs=[
                pb_utils.Tensor("images", pixels),
                pb_utils.Tensor("class_embeddings", class_embeddings),
            ],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        )
        response = request.exec()
        if response.has_error():
            raise UserError(f"{self.scoring_model}: {response.error().message()}")
        return pb_utils.get_output_tensor_by_name(response, "scores").as_numpy()
