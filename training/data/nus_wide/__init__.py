"""NUS-WIDE: 269,648 photos of Flickr, their users' 1,000 commonest tags, 81 checked concepts."""
