"""The Jinja templates of ``tritonsmith_templates``, with one environment for all of them."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

__all__ = ["template"]


def template(name: str) -> Template:
    """Return a template by its file's name, such as ``"config.pbtxt.j2"``."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tritonsmith_templates", ""),
        undefined=StrictUndefined,  # a misspelt name raises; it does not vanish
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # nothing is HTML: who renders gives values that are escaped already
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "ensure_ascii": False}
    return environment
