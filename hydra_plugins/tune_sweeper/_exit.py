"""Exit codes, and the one sentence that goes with each.

0 done                          4 the folder is in use
2 wrong input                   5 the journal is damaged
3 too many failures, no best    6 the disk is full or cannot be written any more
128 + n: ended by signal n (130: Ctrl-C, 143: SIGTERM)
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ._errors import UsageError
from .run._journal import (
    JournalDamaged,
    JournalLocked,
    JournalTooNew,
    JournalUnwritable,
    is_disk_full,
)
from .run._loop import TaskRefused
from .show._display import harmless

DONE, USAGE, FAILED, IN_USE, DAMAGED, UNWRITABLE = 0, 2, 3, 4, 5, 6

_CODES: dict[type[Exception], int] = {
    UsageError: USAGE,
    TaskRefused: USAGE,
    JournalTooNew: USAGE,
    JournalLocked: IN_USE,
    JournalDamaged: DAMAGED,
    JournalUnwritable: UNWRITABLE,
}


@dataclass
class Exit:
    """The exit code of a sweep, set by who knows it."""

    code: int = DONE


@contextmanager
def codes() -> Iterator[Exit]:
    """Turns the errors that a user can mend into a sentence on stderr and an exit code."""
    outcome = Exit()
    try:
        yield outcome
    except tuple(_CODES) as error:
        outcome.code = _CODES[type(error)]
        print(f"error: {harmless(' '.join(str(error).split()))}", file=sys.stderr)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            outcome.code = USAGE
            print(
                f"error: too many files are open at once ({error}): allow more, as with"
                " `ulimit -n 4096`, or run fewer jobs side by side, and type the same",
                file=sys.stderr,
            )
            return
        if not is_disk_full(error):
            raise
        outcome.code = UNWRITABLE
        print(
            f"error: the disk is full ({error}); what ran was let to end, its results lie in its"
            " folders: free some room and type the same",
            file=sys.stderr,
        )
