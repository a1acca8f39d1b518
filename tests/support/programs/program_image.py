"""An image of one installed program: stands in for an image that can't be pulled."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import docker


def import_program(
    client: docker.DockerClient,
    programs: Sequence[str],
    name: str,
    *,
    user: int,
    command: Sequence[str],
    folders: Sequence[str] = (),
    scripts: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Import the programs, of which the first is run, and their libraries.

    ``folders`` are the user's own in the image, ``scripts`` are further programs, by path.
    """
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in {p for program in programs for p in (program, *_libraries(program))}:
            archive.add(Path(path).resolve(), arcname=path)
        for folder in ("/tmp", *folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, user, user
            archive.addfile(entry)
        _add_text(archive, "/etc/passwd", f"root:x:0:0::/:\nuser:x:{user}:{user}::/:\n")
        _add_text(archive, "/etc/group", f"root:x:0:\nuser:x:{user}:\n")
        for path, text in scripts.items():
            _add_text(archive, path, text)
    repository, _, tag = name.rpartition(":")
    words = ", ".join(f'"{word}"' for word in (programs[0], *command))
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
    entry.size, entry.mode = len(text), 0o755
    archive.addfile(entry, io.BytesIO(text.encode()))
