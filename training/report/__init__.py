"""A run as one HTML page: how it was trained, how well it does, and what it sees in photos."""
