"""What the library uses of the machine: threads, forks, memory, time, other processes.

After a **fork**, the child has the locks and files of its parent, but not its threads.
**Room** is memory that this job may still take. A **job** is the processes that train
one model together. **Progress** is told in the thread that wants to know.
"""

__all__ = ["forks", "job", "memory", "pace", "pages", "phases", "progress", "threads"]
