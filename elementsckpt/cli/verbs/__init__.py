"""The verbs of the command line, a module each.

`configure` adds the arguments of a verb to its parser; `run` does it and returns the
exit status. The docstring of the module is its help.
"""
