"""What was learned, in one small file of the data directory: read at the start, replaced now and then."""

from pathlib import Path

from proxy.store.files import replace, turn


class Notebook:
    """`<directory>/learned`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "learned"

    def read(self) -> bytes | None:
        """None: there is nothing, or it cannot be read."""
        try:
            return self._path.read_bytes()
        except OSError:
            return None

    def write(self, learned: bytes) -> None:
        """Durably; a crash leaves the old or the new. Raises OSError."""
        with turn(self._path.parent):
            replace(self._path, learned)
