"""Threads, forks, memory, time: what a process of this machine has.

A **fork** leaves its child the locks and files of the parent, and none of its threads.
**Room** is memory that this job may still take. A **job** is the
processes that train one model together.
"""

__all__ = ["forks", "job", "memory", "phases", "threads"]
