"""Trains a small image-text model: `python -m benchmarks.image_text_model FOLDER`.

The model is a SigLIP of KerasHub with 96x96 pictures, 8x8 tokens and 64 numbers per embedding.
It is trained contrastively, with SigLIP's sigmoid loss over pairs, on pictures of the scenes data
set's kind and on captions that are made from what was drawn: "two red striped stars and a blue
plain ring", "a red star", "a striped thing". A caption is a positive of every picture of the batch
of which it is true. No picture and no caption has one of the 24 classes that are unseen in the
scenes data set of seed 0, so that they can be asked for as combinations that were never seen.

FOLDER becomes a preset of KerasHub, which everything here reads as keras_hub:FOLDER
(docs/image_text_models.md). First come pictures of one object, 48x48 pixels somewhere in the grid
of positions, then whole pictures with up to four objects and pictures of one object in turns.
Captions are compared with whole pictures, and those of one object also with the three regions that
fit best, as in FILIP (Yao et al., ICLR 2022); no boxes are used. Takes about 17 minutes of
processor time, 9 minutes on two idle cores.
"""

import argparse
import io
import math
import os
import pathlib
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from benchmarks.shared.captioned_pictures import (
    PATCH,
    SHIFTS,
    SIZE,
    Pictures,
    draw_one,
    draw_pictures,
    draw_several,
)
from biam_tf.command_line import run_command
from biam_tf.errors import UserError

EXAMPLES = """\
examples:
  python -m benchmarks.image_text_model runs/small_siglip
  python -m training.run --config configs/siglip2.yaml --set data.name=scenes \\
      --set backbone.name=keras_hub:runs/small_siglip \\
      --set vocabulary.word_vectors=keras_hub:runs/small_siglip \\
      --set 'vocabulary.templates=["a {name}"]' --set output=runs/small_clip
"""

CHANNELS, LAYERS, HEADS, HIDDEN, CONTEXT = 64, 6, 4, 128, 20
TEXT_HIDDEN = 32  # little, so that texts are learned as the sums of their words
PIECES, STRONGEST = 150, 3
WARMUP, FIRST_SCALE, FIRST_BIAS = 50, 10.0, -3.0
REPORT_EVERY = 50


class Stage(NamedTuple):
    """A part of the training.

    Attributes:
        name: in messages.
        pictures: number of pictures to draw.
        batch_size: of a step.
        steps: number of steps.
        peak_rate: largest learning rate.
        scene_weight: weight of the loss of whole pictures, beside that of regions.
    """

    name: str
    pictures: int
    batch_size: int
    steps: int
    peak_rate: float
    scene_weight: float


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.image_text_model",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", type=pathlib.Path, help="the preset to write")
    parser.add_argument("--seed", type=int, default=0, help="of pictures and training (default: 0)")
    parser.add_argument(
        "--steps",
        type=int,
        nargs=2,
        default=(2200, 1300),
        metavar=("PARTS", "WHOLE"),
        help="steps on pictures of one object and on whole pictures (default: 2200 1300)",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        nargs=2,
        default=(16000, 4000),
        metavar=("PARTS", "WHOLE"),
        help="number of pictures to draw for each (default: 16000 4000)",
    )
    parser.add_argument("--texts", type=int, default=64, help="captions of a step (default: 64)")
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    for option in ("steps", "pictures"):
        if min(getattr(arguments, option)) < 1:
            raise UserError(f"--{option}: expected two numbers, at least 1")
    if arguments.texts < 1 or arguments.seed < 0:
        raise UserError("--texts: expected at least 1; --seed: at least 0")
    target = arguments.folder
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists already; nothing was changed. Choose another folder")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    stages = [
        Stage("parts", arguments.pictures[0], 128, arguments.steps[0], 1.5e-3, 1.0),
        Stage("whole", arguments.pictures[1], 64, arguments.steps[1], 1.2e-3, 0.3),
    ]
    train(target, stages, arguments.texts, arguments.seed)
    print(f"{target}: written; use it as keras_hub:{target}")


def train(target: pathlib.Path, stages: list[Stage], texts: int, seed: int) -> None:
    """Trains the model and writes it as a preset of KerasHub.

    Args:
        target: the folder to write.
        stages: on pictures of one object, and on whole pictures.
        texts: captions of a step.
        seed: of pictures, captions and weights.

    Raises:
        UserError: keras-hub is not installed, or the folder cannot be written.
    """
    from biam_tf.backbones.preset_folder import import_keras_hub
    from biam_tf.files import replacing

    hub = import_keras_hub()
    import keras

    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    drawn = [
        draw_pictures(draw, stage.name, stage.pictures, np.random.SeedSequence([seed, number]))
        for number, (draw, stage) in enumerate(zip((draw_one, draw_several), stages, strict=True))
    ]
    tokenizer = _make_tokenizer(hub, rng, drawn[-1].counts)
    trainer = _Trainer(hub, tokenizer, drawn[-1].pixels[:, :SIZE, :SIZE], rng)
    for stage, pictures in zip(stages, drawn, strict=True):
        trainer.run(stage, pictures, texts)
    converter = hub.layers.SigLIPImageConverter(
        image_size=(SIZE, SIZE), scale=1 / 127.5, offset=-1.0, interpolation="bicubic"
    )
    preprocessor = hub.models.SigLIPPreprocessor(tokenizer, converter, sequence_length=CONTEXT)
    with replacing(target) as partial:
        trainer.model.save_to_preset(str(partial))
        preprocessor.save_to_preset(str(partial))


def _make_tokenizer(hub: Any, rng: np.random.Generator, counts: np.ndarray) -> Any:
    """Returns SigLIP's tokenizer with pieces learnt from captions of the pictures."""
    import sentencepiece

    from benchmarks.shared.captions import write_caption

    rows = rng.integers(len(counts), size=20_000)
    texts = sorted({write_caption(rng, counts[row]).text for row in rows})
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=PIECES,
        model_type="bpe",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    return hub.models.SigLIPTokenizer(model.getvalue())


class _Trainer:
    """The model and its optimizer.

    Args:
        hub: the package keras_hub.
        tokenizer: of the texts.
        pixels: pictures whose patches the first layer is fitted to.
        rng: of batches and initial values.
    """

    def __init__(
        self, hub: Any, tokenizer: Any, pixels: np.ndarray, rng: np.random.Generator
    ) -> None:
        import keras
        import tensorflow as tf

        from benchmarks.shared.first_weights import start_as_trained, whiten_patches

        self._tokenizer, self._rng, self._ids = tokenizer, rng, {}
        sizes = {"hidden_dim": CHANNELS, "num_heads": HEADS, "intermediate_activation": "relu"}
        self.model = hub.models.SigLIPBackbone(
            hub.models.SigLIPVisionEncoder(
                patch_size=PATCH,
                image_shape=(SIZE, SIZE, 3),
                num_layers=LAYERS,
                intermediate_dim=HIDDEN,
                **sizes,
            ),
            hub.models.SigLIPTextEncoder(
                vocabulary_size=tokenizer.vocabulary_size(),
                embedding_dim=CHANNELS,
                max_sequence_length=CONTEXT,
                num_layers=1,
                intermediate_dim=TEXT_HIDDEN,
                projection_dim=CHANNELS,
                **sizes,
            ),
        )
        whiten_patches(self.model.vision_encoder, pixels, rng)
        start_as_trained(self.model.vision_encoder, rng)
        self._optimizer = keras.optimizers.AdamW(weight_decay=1e-4, beta_2=0.98, clipnorm=1.0)
        self._before: list[tuple[Stage, Pictures]] = []
        self._compiled_step = tf.function(self._step, autograph=False)
        self._optimizer.build(self.model.trainable_variables)

    def run(self, stage: Stage, pictures: Pictures, texts: int) -> None:
        """Trains for the steps of a stage and prints the loss.

        With each step, another one is made on the pictures of the stages before: otherwise the
        first whole pictures would destroy what was learned of shapes.
        """
        head, losses, begun = self.model.siglip_head, [], time.monotonic()
        # The scale that parts have reached would let the first losses of whole pictures explode.
        head.logit_scale.assign(np.log(FIRST_SCALE))
        head.logit_bias.assign(FIRST_BIAS)
        self._before.append((stage, pictures))
        for number in range(1, stage.steps + 1):
            falling = 0.51 + 0.49 * math.cos(math.pi * number / stage.steps)
            self._optimizer.learning_rate = stage.peak_rate * min(number / WARMUP, 1) * falling
            *_, loss = [self._train(*each, texts) for each in self._before]
            losses.append(loss)
            if number % REPORT_EVERY == 0 or number == stage.steps:
                left = (time.monotonic() - begun) / number * (stage.steps - number)
                print(
                    f"{stage.name}: step {number} of {stage.steps}, loss "
                    f"{np.mean(losses[-REPORT_EVERY:]):.3f}, {left / 60:.1f} minutes left",
                    flush=True,
                )

    def _train(self, stage: Stage, pictures: Pictures, texts: int) -> float:
        """Makes one step and returns the loss of whole pictures."""
        import tensorflow as tf

        side, grid = (pictures.pixels.shape[1] - SHIFTS) // PATCH, SIZE // PATCH
        corner = self._rng.integers(grid - side, size=2, endpoint=True, dtype=np.int32)
        weight = tf.constant(stage.scene_weight)
        batch = self._batch(stage, pictures, texts)
        return float(self._compiled_step(*batch, tf.constant(corner), weight))

    def _batch(self, stage: Stage, pictures: Pictures, texts: int) -> tuple[np.ndarray, ...]:
        from benchmarks.shared.captions import are_true, write_caption

        rng, (pixels, counts) = self._rng, pictures
        rows = rng.integers(len(pixels), size=stage.batch_size)
        y, x = rng.integers(SHIFTS, size=2, endpoint=True)
        side = pixels.shape[1] - SHIFTS
        chosen = pixels[rows, y : y + side, x : x + side]
        chosen = _turned(chosen, int(rng.integers(8)))
        captions = [write_caption(rng, counts[row]) for row in rng.choice(rows, texts)]
        labels = are_true(counts[rows], captions).astype(np.float32)
        of_one = np.array([c.numbers.tolist() == [1] for c in captions], np.float32)
        return chosen, self._encoded([caption.text for caption in captions]), labels, of_one

    def _encoded(self, texts: list[str]) -> np.ndarray:
        """Returns token ids (T, CONTEXT) int32: the text, its end, padding."""
        new = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if new:
            end, padding = self._tokenizer.end_token_id, self._tokenizer.pad_token_id
            for text, tokens in zip(new, self._tokenizer(new), strict=True):
                row = [*np.asarray(tokens)[: CONTEXT - 1].tolist(), end]
                self._ids[text] = row + [padding] * (CONTEXT - len(row))
        return np.array([self._ids[text] for text in texts], np.int32)

    def _step(
        self, pixels: Any, ids: Any, labels: Any, of_one: Any, corner: Any, scene_weight: Any
    ) -> Any:
        import tensorflow as tf

        variables, head = self.model.trainable_variables, self.model.siglip_head
        with tf.GradientTape() as tape:
            scenes, regions = self._image_side(tf.cast(pixels, tf.float32) / 127.5 - 1, corner)
            texts = tf.math.l2_normalize(self.model.get_text_embeddings(ids), -1)

            def losses(cosines: Any) -> Any:
                logits = tf.exp(head.logit_scale) * cosines + head.logit_bias
                return tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)

            whole = losses(tf.matmul(tf.math.l2_normalize(scenes, -1), texts, transpose_b=True))
            found = tf.einsum("brd,td->btr", tf.math.l2_normalize(regions, -1), texts)
            strongest = tf.reduce_mean(tf.math.top_k(found, STRONGEST, sorted=False).values, -1)
            loss = tf.reduce_mean(
                tf.reduce_sum(scene_weight * whole + of_one * losses(strongest), 1)
            )
        self._optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return tf.reduce_mean(tf.reduce_sum(whole, 1))

    def _image_side(self, pictures: Any, corner: Any) -> tuple[Any, Any]:
        """Embeds pictures (B, S, S, 3), which lie at a place of the grid of positions.

        Returns scenes (B, d) and regions (B, R, d), as `biam_tf.backbones.joint_space` has them.
        """
        import tensorflow as tf

        encoder, side, grid = self.model.vision_encoder, pictures.shape[1] // PATCH, SIZE // PATCH
        tokens = encoder.embedding.patch_embedding(pictures)
        positions = tf.convert_to_tensor(encoder.embedding.position_embedding.embeddings)
        positions = tf.reshape(positions, (grid, grid, CHANNELS))
        positions = tf.slice(positions, tf.concat([corner, [0]], 0), (side, side, CHANNELS))
        tokens = tf.reshape(tokens + positions, (-1, side * side, CHANNELS))
        for layer in encoder.encoder_layers:
            tokens = layer(tokens, training=True)
        tokens = encoder.post_layer_norm(tokens)
        regions = encoder.head(tf.reshape(tokens, (-1, 1, CHANNELS)))
        return encoder.head(tokens), tf.reshape(regions, (-1, side * side, CHANNELS))


def _turned(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Returns pictures mirrored and turned in one of eight ways."""
    if turn & 1:
        pixels = pixels[:, :, ::-1]
    if turn & 2:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels.transpose(0, 2, 1, 3) if turn & 4 else pixels)


if __name__ == "__main__":
    sys.exit(main())
