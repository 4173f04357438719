"""A progress bar that interrupts, for the tests of extraction."""


class Interrupted:
    """A progress bar that stops the work after some photos, as Ctrl-C would."""

    def __init__(self, photos):
        self.photos = photos

    def __call__(self, **settings):
        self.settings = settings
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def update(self, count):
        self.photos -= count
        if self.photos < 0:
            raise KeyboardInterrupt
