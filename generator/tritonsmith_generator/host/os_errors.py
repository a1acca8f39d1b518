"""What the system says about files, in words: which file, what happened, what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tritonsmith_generator.errors import HostError, InputError, TritonsmithError

__all__ = ["file_trouble_in_words"]

_Way = tuple[type[TritonsmithError], str]

_GONE: _Way = (InputError, "put it back as it was when the build began")
_CLOSED: _Way = (InputError, "give this user the right to it")
_FULL: _Way = (HostError, "free space there, or take another place")
_BUSY: _Way = (HostError, "build fewer models at a time (--jobs)")
_WAYS: Mapping[int, _Way] = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ESTALE), _GONE),
    **dict.fromkeys((errno.EACCES, errno.EPERM), _CLOSED),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EROFS), _FULL),
    **dict.fromkeys((errno.ENOMEM, errno.EAGAIN), _BUSY),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), (HostError, "allow more open files (ulimit -n)")),
    errno.EFBIG: (HostError, "allow larger files (ulimit -f)"),
}
_OTHER: _Way = (HostError, "look after that file and the disk that it is on")


@contextmanager
def file_trouble_in_words(doing: str, folder: Path) -> Iterator[None]:
    """Raise an InputError or HostError in the place of an OSError within the block.

    One about ``folder``, whose maker knows what to say, is passed on; so is a full disk that is
    not told by a name, since ``folder`` is what is written to.
    """
    try:
        yield
    except OSError as exc:
        way = _WAYS.get(exc.errno or 0, _OTHER)
        # A copy names both of its ends; where a disk is full, it is that of the second.
        name = exc.filename2 if way is _FULL and exc.filename2 else exc.filename
        where = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None
        ours = way is _FULL if where is None else where.is_relative_to(folder)
        if ours:
            raise
        kind, advice = way
        what = exc.strerror or str(exc)
        found = f"{doing}: {what}" if where is None else f"{doing}: {where}: {what}"
        raise kind(f"{found}; {advice}, then build again") from exc
