"""New processes that import nothing anew: children of one that has imported all.

A test of what a process does in its first moments, of what it imports, or of how much
memory it takes starts one by `boxes.python`; all others are as well off with a child.
"""

import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import types

from elementsckpt.run import background  # noqa: F401
from elementsckpt.system import threads

from support import faults, folders, numbered  # noqa: F401
from support.boxes import environment


class Zygote:
    """A process without threads that forks a child for each script; a context manager.

    A child is the main process of its script: it has arguments, prints, fails and ends
    as one that `boxes.python` starts.
    """

    def __enter__(self):
        self._process = None
        return self

    def __exit__(self, *_):
        if self._process is not None:
            self._process.communicate()

    def __call__(self, script, *arguments):
        """Run a script; return what came of it, as `subprocess.run` does."""
        if self._process is None:
            self._begin()
        with tempfile.TemporaryDirectory() as folder:
            arguments = [*map(str, arguments)]
            order = {"script": script, "arguments": arguments, "folder": folder}
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            try:
                code = int(self._process.stdout.readline())
            except BaseException:  # What comes late is no answer to the next one.
                self._process.kill()
                self._process.communicate()
                self._process = None
                raise
            output, errors = (
                pathlib.Path(folder, name).read_text() for name in ("stdout", "stderr")
            )
        return subprocess.CompletedProcess(arguments, code, output, errors)

    def _begin(self):
        # A library's threads would make it a process that should not fork.
        single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(**single),
            text=True,
        )


def serve():
    """Fork a child for each line of standard input; in a child, return its order."""
    start = threads.start
    faults.use_one_thread()
    logging.disable()
    with tempfile.TemporaryDirectory() as root:
        faults.warm_up(faults.FilesAgain(root))
    logging.disable(logging.NOTSET)
    threads.start = start
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


def become(script, arguments, folder):
    """Run a script as the main module of this process."""
    flags = os.O_WRONLY | os.O_CREAT
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(pathlib.Path(folder, "stdout"), flags), 1)
    os.dup2(os.open(pathlib.Path(folder, "stderr"), flags), 2)
    sys.argv = ["-c", *arguments]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(script, "<string>", "exec"), vars(main))


if __name__ == "__main__":
    order = serve()
    if order is not None:
        become(**order)
