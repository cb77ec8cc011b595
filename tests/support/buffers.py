"""A replay buffer that is saved as a ring, in blocks of two rows."""

import numpy as np

import elementsckpt
from elementsckpt import Checkpoint, Ring

ROWS, COLUMNS = 300, 256  # A row is a kilobyte.


class Buffer:
    """A ring buffer whose rows tell when they were written."""

    def __init__(self, kind=np.asarray, axis=0, shape=(ROWS, COLUMNS)):
        self.frames = np.zeros(shape, np.float32)
        self.added = 0
        self.kind = kind
        self.axis = axis
        self.is_ring = True

    def add(self, count=1):
        for number in range(self.added, self.added + count):
            place = number % self.frames.shape[self.axis]
            np.moveaxis(self.frames, self.axis, 0)[place] = number + 1
        self.added += count

    def save(self):
        frames = self.kind(self.frames)
        wrapped = Ring(frames, self.added, self.axis) if self.is_ring else frames
        return {"frames": wrapped, "added": self.added}

    def load(self, data):
        self.frames, self.added = np.array(data["frames"]), data["added"]


def opened(directory, background=False, keep=1, **options):
    manner = {"fsync": False, "background": background, "compress": None}
    cp = Checkpoint(directory, keep, **manner)
    cp.buffer = Buffer(**options)
    return cp


def saved(cp):
    """Save; return the report, and the frames in the save."""
    report = cp.save()
    report = cp.wait() or report
    return report, elementsckpt.read(report.path)["buffer"]["frames"]
