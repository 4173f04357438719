"""NUS-WIDE: 269,648 Flickr photos, the 1,000 most frequent user tags, 81 verified concepts."""
