"""A whole run, from its configuration to its report."""
