"""An image of one installed program: stands in for an image that can't be pulled."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import docker


def import_program(
    client: docker.DockerClient,
    program: str,
    name: str,
    *,
    user: int,
    command: Sequence[str],
    folders: Sequence[str] = (),
) -> None:
    """Import the program and its libraries; ``folders`` are the user's own in the image."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in (program, *_libraries(program)):
            archive.add(Path(path).resolve(), arcname=path)
        for folder in ("/tmp", *folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, user, user
            archive.addfile(entry)
        _add_text(archive, "/etc/passwd", f"root:x:0:0::/:\nuser:x:{user}:{user}::/:\n")
        _add_text(archive, "/etc/group", f"root:x:0:\nuser:x:{user}:\n")
    repository, _, tag = name.rpartition(":")
    words = ", ".join(f'"{word}"' for word in (program, *command))
    client.api.import_image_from_data(
        content.getvalue(),
        repository=repository,
        tag=tag,
        changes=[f"USER {user}", f"CMD [{words}]"],
    )


def _libraries(program: str) -> list[str]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", listed)


def _add_text(archive: tarfile.TarFile, path: str, text: str) -> None:
    entry = tarfile.TarInfo(path)
    entry.size = len(text)
    archive.addfile(entry, io.BytesIO(text.encode()))
