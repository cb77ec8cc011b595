"""The page about looking at saves shows what the command line prints."""

import pathlib
import re

from elementsckpt.cli.main import main

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "looking.md"
AGE = re.compile(r"\b(now|\d+ s|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\b")


def test_outputs_of_commands_are_what_they_print(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text("utf-8")
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, scope)
    blocks = re.findall(r"```sh\n(\$ .*?)```", text, re.DOTALL)
    shown = re.findall(r"^\$ elementsckpt (.*)\n((?:(?!\$).*\n)+)", blocks[0], re.M)
    assert len(shown) == 2
    for command, output in shown:
        capsys.readouterr()
        assert main(command.split()) == 0
        printed = capsys.readouterr().out
        assert AGE.sub("", printed).split() == AGE.sub("", output).split()
