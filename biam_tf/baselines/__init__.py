"""The rivals of BiAM, each a system of one file."""
