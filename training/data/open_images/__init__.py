"""Open Images v4: 9 million photos, labels of 19,794 classes checked by people, 7,186 trainable."""
