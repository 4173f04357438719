"""The tagger: from photos and class embeddings to one score per class."""

import keras


def build_tagger(backbone: keras.Model, head: keras.Model, name: str = "tagger") -> keras.Model:
    """Joins a backbone and a head to one model, which shares the weights of both.

    Args:
        backbone: a model of `biam_tf.backbones.build_backbone`, from `images` to
            `region_features` and `scene_feature`.
        head: a model of `build_head` or `bind_vocabulary`.
        name: str, name of the model. Defaults to `"tagger"`.

    Returns:
        A `keras.Model` with the inputs `images` `(batch, size, size, 3)`, raw RGB values 0 to
        255, and `class_embeddings` `(classes, embedding_size)` (unless bound), and the head's
        outputs.

    Raises:
        ValueError: the head was built for features of another shape than the backbone's.
    """
    inputs = {"images": keras.Input(batch_shape=backbone.inputs[0].shape, name="images")}
    features = backbone(inputs["images"])
    for tensor in head.inputs:
        if tensor.name == "class_embeddings":
            inputs[tensor.name] = keras.Input(batch_shape=tensor.shape, name=tensor.name)
            features[tensor.name] = inputs[tensor.name]
            continue
        given = tuple(features[tensor.name].shape[1:])
        if any(a not in (None, b) for a, b in zip(tensor.shape[1:], given, strict=True)):
            raise ValueError(
                f"backbone {backbone.name!r} outputs {tensor.name} of shape {given}; head "
                f"{head.name!r} was built for {tuple(tensor.shape[1:])}"
            )
    outputs = head([features[tensor.name] for tensor in head.inputs])
    return keras.Model(list(inputs.values()), outputs, name=name)
