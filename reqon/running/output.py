"""`--output`: what the stores hold when a mission completed, as JSON files."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reqon.errors import ConfigurationError
from reqon.files import make_directory, write_report
from reqon.runtime.execution import OpenStore
from reqon.values import encode


def export_stores(stores: Iterable[OpenStore], output: Path) -> None:
    """`--output`: a directory gets one JSON array per store; a file ending in .json one object, name -> array.

    Raises:
        ConfigurationError: it cannot be written.
    """
    with writing(output):
        if output.suffix == ".json":
            whole = {opened.name: list(opened.store.records()) for opened in stores}
            make_directory(output.parent)
            write_report(output, encode(whole, pretty=True) + b"\n")
            return
        make_directory(output)
        for opened in stores:
            write_report(output / f"{opened.name}.json", encode(list(opened.store.records()), pretty=True) + b"\n")


@contextmanager
def writing(output: Path) -> Iterator[Path]:
    """What is done inside writes to `output`.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        yield output
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise ConfigurationError(
            f"--output {output} cannot be written: {reason}", hint="name a folder, or a file that ends in .json"
        ) from error
