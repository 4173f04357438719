"""Open Images v4: 9 million photos, human-verified labels of 19,794 classes, 7,186 trainable."""
