"""Photos indexed once and scored against any classes later."""
