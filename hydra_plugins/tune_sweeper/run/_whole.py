"""The files of a sweep's folder: none of them half written, none of them anywhere else.

A folder may be somebody else's. Where one of our names is a symbolic link there, what it leads to
is neither changed nor deleted.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes, *, is_durable: bool = False) -> None:
    """Puts a file in the place of the one that is there.

    The content of a durable one is on the disk before it gets its name.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(new, "xb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if is_durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(new, path)


def open_own(path: Path, mode: str, **options: Any) -> Any:
    """As `open`, but for a file that is really there: no link to another, no device, no pipe.

    Raises:
        OSError: it is something else, or cannot be opened.
    """
    file = open(path, mode, opener=_open_no_link, **options)  # noqa: SIM115 (the caller closes it)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path} is no plain file")
    return file


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path below `folder` leads there, and not out of it through links."""
    return path.resolve().is_relative_to(folder.resolve())


def remove_links_out(folder: Path, below: str) -> None:
    """Removes the symbolic links that would lead what is written in `below` out of `folder`."""
    place = folder
    for part in Path(below).parts:
        place /= part
        if place.is_symlink():
            place.unlink()
    for parent, folders, files in os.walk(place):
        for name in (*folders, *files):
            entry = Path(parent, name)
            if entry.is_symlink() and not is_inside(entry, folder):
                with contextlib.suppress(OSError):
                    entry.unlink()
