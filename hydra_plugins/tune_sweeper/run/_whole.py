"""Files that readers see as they were or as they will be, never half of one."""

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes, *, is_durable: bool = False) -> None:
    """Puts a file in the place of the one that is there.

    The content of a durable one is on the disk before it gets its name.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    new = path.with_name(f"{path.name}.new")
    with open(new, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if is_durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(new, path)
