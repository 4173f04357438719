"""A model that the page asks: its files, and the server that has it."""

import dataclasses
import pathlib

from serving.demo_page.exported_model import ExportedModel, read_newest
from serving.rpc.tagging_client import TaggingClient
from serving.server import TaggingServer


@dataclasses.dataclass(frozen=True, eq=False)
class ServedModel:
    """A model's folder and a server of it; all tagging goes through the server.

    Attributes:
        model_dir: holds a folder for each version.
        address: `host:port` of the server.
        client: connected to it.
        server: the embedded one; None: it is another program.
    """

    model_dir: pathlib.Path
    address: str
    client: TaggingClient
    server: TaggingServer | None = None

    @property
    def model(self) -> ExportedModel:
        """The newest version, as its files describe it."""
        return read_newest(self.model_dir)


def connect(address: str, **options) -> TaggingClient:
    """Returns a client for a person who waits: a server that is gone is told of at once.

    Args:
        address: `host:port` of the server.
        **options: the others of `TaggingClient`.
    """
    return TaggingClient(address, timeout_seconds=60.0, retries=3, **options)
