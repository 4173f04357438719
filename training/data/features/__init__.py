"""Stored backbone features: extraction, on one machine or many, and reading."""
