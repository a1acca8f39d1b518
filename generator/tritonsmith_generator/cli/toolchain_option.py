"""``gen-repo build --in-release``: where plans are compiled."""

from __future__ import annotations

from collections.abc import Callable

from tritonsmith_generator.engine.toolchain import LOCAL, Toolchain
from tritonsmith_generator.errors import HostError, UsageError
from tritonsmith_generator.events import Event
from tritonsmith_generator.repository.release import NVIDIA_IMAGE

__all__ = ["choose_toolchain"]


def choose_toolchain(
    in_release: str | None,
    in_image: str | None,
    wanted: str | None,
    show: Callable[[Event], None],
) -> Toolchain:
    """Return this environment's TensorRT, or an image's. ``wanted`` is the release in the spec.

    Raises UsageError for options that contradict each other or the spec.
    """
    if in_release is None and in_image is None:
        return LOCAL
    if in_release is not None and in_image is not None:
        raise UsageError("--in-release and --in-image: name one of the two")
    if in_release is not None and wanted not in (None, in_release):
        raise UsageError(
            f"--in-release {in_release}: the spec says triton: {wanted}, and a plan loads in the "
            "release that it was built in. Change one of the two"
        )
    try:
        from tritonsmith_generator.engine_image.toolchain import image_toolchain
    except ModuleNotFoundError as exc:
        raise HostError(
            "A build inside an image needs the Python package 'docker': "
            "pip install 'tritonsmith[docker]'"
        ) from exc
    name = in_image or NVIDIA_IMAGE.format(release=in_release)
    return image_toolchain(name, lambda text, done: show(Event(name, "image", text, done)))
