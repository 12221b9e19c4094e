"""One process to a home: an flock on the file LOCK, which also says who has it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from protocols.errors import LadingError, LocalError, Reason, Refused, StoreDamaged, StoreFull

LOCK_FILE = "LOCK"


class HomeLock:
    """Held from construction until ``release``, or until the process dies, whichever way."""

    def __init__(self, home: Path | str) -> None:
        """home: an existing folder. Raises Refused(LOCKED) naming the process that has it, StoreFull, StoreDamaged."""
        self.path = Path(home) / LOCK_FILE
        try:
            self._file = self._open()
        except OSError as error:
            raise _translated(error, self.path) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip()
            os.close(self._file)
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise Refused(Reason.LOCKED, f"{Path(home)} is in use by {who}", hint="stop it, or use another home", pid=holder) from error
        except OSError as error:
            os.close(self._file)
            raise _translated(error, self.path) from error
        self._write_pid()

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.ENOSPC):
                raise
            # A read-only or full disk can still be read: the lock needs the file, not a write.
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def _write_pid(self) -> None:
        # Who holds it is a courtesy; the lock is the flock. A full or read-only disk must not keep the node from starting.
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOSPC, errno.EROFS, errno.EDQUOT):
                os.close(self._file)
                raise _translated(error, self.path) from error

    def release(self) -> None:
        """Lets others in. Twice is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> HomeLock:
        if self._file < 0:
            raise LocalError(Reason.FAILED, "the home lock was released")
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _translated(error: OSError, path: Path) -> LadingError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"{path}: no space left on the disk", resource="disk")
    return StoreDamaged(f"{path}: {error.strerror}", path=str(path))
