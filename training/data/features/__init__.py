"""Stored backbone features: extraction on one or many machines, and reading."""
