"""What ``--help`` says: whole lines, with the defaults."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import pytest
from support.programs.command import GenRepo

from tritonsmith_client._cli.main import main
from tritonsmith_generator.cli import command_line

COMMANDS = {
    command.callback.__name__: command.callback  # type: ignore[union-attr]
    for command in command_line().registered_commands
}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_description_is_not_broken_within_its_lines(
    gen_repo: GenRepo, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = [line.strip() for line in gen_repo(name, "--help").out.splitlines()]
    _, _, more = (inspect.getdoc(COMMANDS[name]) or "").partition("\n\n")
    assert [line for line in more.splitlines() if line not in shown] == []


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("build", "model_repository"),
        ("build", "one a core"),
        ("serve", "the spec's"),
        ("deploy", "the spec's"),
    ],
)
def test_what_is_taken_by_default(
    gen_repo: GenRepo, monkeypatch: pytest.MonkeyPatch, name: str, default: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert f"[default: {default}]" in gen_repo(name, "--help").out


def test_the_version(gen_repo: GenRepo, capsys: pytest.CaptureFixture[str]) -> None:
    assert gen_repo("--version").out == f"gen-repo {version('tritonsmith')}\n"
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"tritonsmith {version('tritonsmith')}\n"
