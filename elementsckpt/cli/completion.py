"""What completes command lines: scripts for shells, which ask the program for words.

The scripts call `elementsckpt` with the words so far in the environment, as argcomplete
does. Bash breaks words at "@" and ":", so what is before these is left out there. Names
with control characters are not offered, and shells quote what is special to them.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Sequence

from ..errors import one_line

VARIABLE = "_ELEMENTSCKPT_COMPLETE"  # Has the words, a line each, the last unfinished.

SCRIPTS = {
    "bash": """\
_elementsckpt() {
    local line=${COMP_LINE:0:COMP_POINT} IFS=$' \\t\\n' word prefix breaks
    local -a words
    read -a words <<< "$line"  # Not broken at "@" and ":", as COMP_WORDS are.
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[${#words[@]} - 1]}
    [[ $COMP_WORDBREAKS == *@* ]] && breaks+=@
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=:
    [[ -n $breaks ]] && prefix=${word%"${word##*[$breaks]}"}
    prefix=${prefix%@}  # Readline begins a word with an "@", and after a ":".
    IFS=$'\\n'
    COMPREPLY=()
    while IFS= read -r word; do
        [[ -n $word ]] && printf -v word %q "$word" &&
            COMPREPLY+=("${word#"$prefix"}")
    done < <(_ELEMENTSCKPT_COMPLETE="${words[*]:1}" elementsckpt 2>/dev/null)
}
complete -o default -o nosort -F _elementsckpt elementsckpt 2>/dev/null ||
    complete -o default -F _elementsckpt elementsckpt
""",
    "zsh": """\
#compdef elementsckpt
_elementsckpt() {
    local -a found
    found=("${(@f)$(_ELEMENTSCKPT_COMPLETE="${(F)words[2,CURRENT]}" \\
        elementsckpt 2>/dev/null)}")
    found=("${(@)found:#}")
    (( $#found )) && compadd -U -S '' -- "${found[@]}" || _files
}
compdef _elementsckpt elementsckpt
""",
    "fish": """\
function __elementsckpt_complete
    set -l words (commandline -opc)
    set -lx _ELEMENTSCKPT_COMPLETE (begin
        string join \\n -- $words[2..-1]
        echo -n -- (commandline -ct)
    end | string collect --no-trim-newlines)
    elementsckpt 2>/dev/null
end
complete -c elementsckpt -f -a '(__elementsckpt_complete)'
complete -c elementsckpt -F
""",
}
_MOST = 500


def words(line: str, parser: argparse.ArgumentParser) -> list[str]:
    """Return what may take the place of the last word.

    Args:
      line: The words, a line each; the last one may be empty.
      parser: That of the command line.
    """
    before = line.split("\n")
    last = before.pop()
    verbs = verbs_of(parser)
    verb = next((word for word in before if word in verbs), None)
    if verb is None:
        return _starting(last, [*verbs, *_options(parser)])
    if last.startswith("-"):
        return _starting(last, _options(verbs[verb]))
    found = _choices(verbs[verb], last)
    option = next((x for x in verbs[verb]._actions if before[-1] in _values(x)), None)
    if option is not None:
        return _shown(_of_option(option, before[before.index(verb) + 1 :], last))
    if verb == "cat" and len(before) == 1 + before.index(verb) + 1:
        found += _leaves(before[-1], last)
    if not found:
        found = _addresses(last)
    return _shown(found)


def _shown(words: Iterable[str]) -> list[str]:
    return [word for word in words if one_line(word) == word][:_MOST]


def _values(action: argparse.Action) -> Sequence[str]:
    """Return the names of an option that takes a value."""
    return action.option_strings if action.nargs != 0 else ()


def _of_option(
    option: argparse.Action, before: Sequence[str], text: str
) -> Sequence[str]:
    """Return values of an option; none where names of files are meant.

    Args:
      option: The option.
      before: The words after the verb.
      text: What the value begins with.
    """
    if option.choices is not None:
        return _starting(text, option.choices)
    if option.dest == "regex":
        return [x for path in _paths(before) for x in _leaves(path, text)]
    if option.dest == "metric":
        return [x for path in _paths(before) for x in _metrics(path, text)]
    return []


def _paths(words: Sequence[str]) -> list[str]:
    """Return the first word, if it is no option."""
    return [word for word in words[:1] if word[:1] != "-"]


def _metrics(directory: str, text: str) -> list[str]:
    import elementsckpt

    found: dict[str, None] = {}
    with contextlib.suppress(Exception):
        for save in elementsckpt.saves(directory):
            found |= dict.fromkeys(save.metrics)
    return _starting(text, found)


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the verbs, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [x for action in parser._actions for x in action.option_strings]


def _choices(parser: argparse.ArgumentParser, last: str) -> list[str]:
    given = [x.choices for x in parser._actions if not x.option_strings and x.choices]
    return [word for choices in given for word in _starting(last, choices)]


def _starting(text: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(text)]


def _addresses(text: str) -> list[str]:
    """Return addresses of saves, if there is a directory before an "@"."""
    directory, at, _ = text.rpartition("@")
    if not at:
        return []
    import elementsckpt

    found: list[str] = []
    with contextlib.suppress(Exception):  # Completion must not disturb the shell.
        saves = elementsckpt.saves(directory)
        names = ["latest", "best"]
        names += [str(x.step) for x in saves if x.step is not None]
        names += [f"pin:{x.pin}" for x in saves if x.pin is not None]
        names += [f"#{x.sequence}" for x in saves if x.sequence is not None]
        found = [f"{directory}@{name}" for name in dict.fromkeys(names)]
    return _starting(text, found)


def _leaves(save: str, text: str) -> Sequence[str]:
    import elementsckpt

    with contextlib.suppress(Exception):
        return _starting(text, [leaf.full_name for leaf in elementsckpt.leaves(save)])
    return []
