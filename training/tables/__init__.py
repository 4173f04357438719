"""Tables and plots as files."""
