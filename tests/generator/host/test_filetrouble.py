"""Trouble with a file during a build: the message names that file, and not the cache."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.onnx import bad_models as models
from support.programs.command import GenRepo

from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.host.os_errors import file_trouble_in_words

# Called when ranges are measured: the model has been looked at, and its answers are recorded.
MEANWHILE = """
from pathlib import Path
import numpy as np

def samples():
    {what}
    yield {{"x": np.ones((8, 4), np.float32)}}
"""


def meanwhile(what: str) -> None:
    """A model with its weights in another file, and something that happens to them."""
    models.external("weights.bin", size=64)(Path())
    Path("weights.bin").write_bytes(np.linspace(1, 2, 16, dtype=np.float32).tobytes())
    np.savez("cases.npz", x=np.ones((8, 4), np.float32))
    Path("made.py").write_text(MEANWHILE.format(what=what))
    Path("models.yaml").write_text(
        "models: {m: {onnx: model.onnx, target: onnxruntime, precision: int8, "
        "accuracy: {samples: cases.npz}, calibration: 'made:samples'}}\n"
    )


def test_weights_that_vanish_while_the_model_is_converted(gen_repo: GenRepo) -> None:
    meanwhile("Path('weights.bin').unlink()")
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert (outcome.code, Path("repository/m").exists()) == (1, False), outcome
    assert outcome.err.startswith("gen-repo: the stage conversion: weights.bin: No such file or ")
    assert "put it back as it was when the build began, then build again" in outcome.err
    assert "cache" not in outcome.err


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
os.execv(sys.executable, [sys.executable, "-m", "tritonsmith_generator", *sys.argv[1:]])
"""


def test_a_limit_of_the_shell_is_no_trouble_of_the_cache(tmp_path: Path) -> None:
    np.savez(tmp_path / "large.npz", x=np.ones((8, 1 << 18), np.float32))
    (tmp_path / "models.yaml").write_text(
        "models: {m: {onnx: model.onnx, target: onnxruntime, accuracy: {samples: large.npz}}}\n"
    )
    wide = [models.tensor(name, shape=("batch", 1 << 18)) for name in "xy"]
    models.saved(models.model([models.relu()], wide[:1], wide[1:]))(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "models.yaml", "-o", "repository"],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == HostError.exit_code, done.stdout + done.stderr
    assert done.stderr.endswith(
        "gen-repo: the stage cases: File too large; allow larger files (ulimit -f), "
        "then build again\n"
    )


# what the system said: (the error, its class, what is told)
SAID = {
    "closed": (
        PermissionError(errno.EACCES, "Permission denied", "/data/w.bin"),
        InputError,
        "the work: /data/w.bin: Permission denied; give this user the right to it, ",
    ),
    "another disk is full": (
        OSError(errno.ENOSPC, "No space left on device", "/cache/m.plan", None, "/models/m.plan"),
        HostError,
        "the work: /models/m.plan: No space left on device; free space there, or take another ",
    ),
    "bytes": (
        FileNotFoundError(errno.ENOENT, "No such file or directory", b"/data/w.bin"),
        InputError,
        "the work: /data/w.bin: No such file or directory; put it back ",
    ),
    "too many files": (
        OSError(errno.EMFILE, "Too many open files"),
        HostError,
        "the work: Too many open files; allow more open files (ulimit -n), ",
    ),
    "a disk that fails": (
        OSError(errno.EIO, "Input/output error", "/data/w.bin"),
        HostError,
        "the work: /data/w.bin: Input/output error; look after that file and the disk that it is ",
    ),
    "no number": (OSError("nobody answers"), HostError, "the work: nobody answers; look after "),
}


@pytest.mark.parametrize("kind", SAID)
def test_what_the_system_says_of_other_files(kind: str, tmp_path: Path) -> None:
    """Faults that nothing in a test can produce."""
    error, expected, message = SAID[kind]
    with (
        pytest.raises(expected) as caught,
        file_trouble_in_words("the work", tmp_path),
    ):
        raise error
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(", then build again")
    assert caught.value.__cause__ is error


def test_what_concerns_the_folder_itself_is_its_maker_s_to_tell(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    lost = FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "content/model.onnx"))
    for error in (full, lost):
        with pytest.raises(OSError) as caught, file_trouble_in_words("the work", tmp_path):
            raise error
        assert caught.value is error
