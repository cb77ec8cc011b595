"""The verbs of the command line, a module each.

`configure` adds the arguments of a verb to its parser; `run` does it and returns the
exit status. The docstring of the module is its help.
"""

__all__: list[str] = []

# In the order of the help: what looks, what writes, what removes, what is for shells.
NAMES = (
    *("ls", "tree", "cat", "stats", "diff", "du", "verify", "watch", "report"),
    *("export", "convert", "pin", "unpin", "prune", "rm", "doctor", "completion"),
)
