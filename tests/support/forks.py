"""Processes that are forked from one, which has imported the library already."""

import json
import subprocess
import sys

from support.boxes import environment

# A fork runs the script as the program: it is `__main__`, and ends as one.
PROGRAM = """
import gc, importlib, json, os, sys

for name in sys.argv[1:]:
    importlib.import_module(name)
gc.freeze()  # Or each fork, at its end, copies the pages of all modules to clear them.
for line in sys.stdin:
    script, sys.argv[1:], folder, variables, outputs = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
os.setsid()
os.chdir(folder)
os.environ.update(variables)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for number, path in enumerate(outputs, 1):
    os.dup2(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND), number)
del gc, importlib, json, name, line, child, folder, variables, outputs, number, path
exec(compile(globals().pop("script"), "<string>", "exec"))
"""


class Forks:
    """Runs scripts, as `boxes.python` does, without a wait for their imports.

    What such a script cannot tell is what is imported, or how Python starts.
    """

    def __init__(self, folder, *modules, flags=(), **variables):
        """Start the process that is forked.

        Args:
          folder: For what the scripts print.
          modules: Names of what it imports; nothing in it may start a thread.
          flags: Of Python.
          variables: Of its environment.
        """
        self.outputs = [folder / "stdout", folder / "stderr"]
        self.process = subprocess.Popen(
            [sys.executable, *flags, "-c", PROGRAM, *modules],
            cwd=folder,
            env=environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()

    def run(self, script, *arguments, cwd=".", **variables):
        """Run a script in a folder; returns how it ended and what it printed."""
        request = [script, [*map(str, arguments)], str(cwd), variables]
        request.append([*map(str, self.outputs)])
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        out, err = (path.read_text() for path in self.outputs)
        return subprocess.CompletedProcess(script, code, out, err)
