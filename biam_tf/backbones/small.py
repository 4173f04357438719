"""Four convolutions, trained from scratch together with the head."""

import keras
from keras import layers

from biam_tf.backbones.spec import BackboneSpec
from biam_tf.ways_to_compute import is_tensorflow

# Filters, kernel size, stride, and whether a 2x2 max pooling follows, which keeps thin strokes that
# a stride would skip.
CONVOLUTIONS = ((32, 5, 2, False), (64, 3, 1, True), (128, 3, 1, True), (128, 3, 1, False))


def build(image_size: int) -> keras.Model:
    """Builds the backbone: at 96x96, regions 12x12x128 and a scene feature of length 256.

    The scene feature is the mean and the maximum of the last convolution over all regions; the
    maximum keeps an object that fills only one of them.
    """
    # === Functional Model ===
    images = keras.Input((image_size, image_size, 3), dtype="float32", name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="rescaling")(images)
    for number, (filters, kernel_size, strides, pooled) in enumerate(CONVOLUTIONS, start=1):
        x = layers.Conv2D(
            filters,
            kernel_size,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"conv{number}",
        )(x)
        # With a momentum of 0.9 the initial statistics are forgotten within a short run.
        # Synchronized, so that several devices train like one.
        x = layers.BatchNormalization(
            momentum=0.9, synchronized=is_tensorflow(), name=f"bn{number}"
        )(x)
        x = layers.ReLU(name=f"relu{number}")(x)
        if pooled:
            x = layers.MaxPooling2D(2, name=f"pool{number}")(x)  # (B, S/8, S/8, 128) at the last
    mean = layers.GlobalAveragePooling2D(name="mean")(x)
    maximum = layers.GlobalMaxPooling2D(name="maximum")(x)
    scene_feature = layers.Concatenate(name="scene_feature")([mean, maximum])
    return keras.Model(
        images, {"region_features": x, "scene_feature": scene_feature}, name=SPEC.name
    )


SPEC = BackboneSpec(
    name="small",
    description="four convolutions, trained from scratch; for small pictures and quick trials",
    build=build,
    default_image_size=96,
    image_size_step=8,
)
