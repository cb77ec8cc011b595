import numpy as np

import elementsckpt

step = elementsckpt.Counter()
model = elementsckpt.Saveable(["weights"])  # Or anything with save() and load(data).
model.weights = np.zeros(1000)

cp = elementsckpt.Checkpoint("logdir/quickstart")
cp.step, cp.model = step, model
print("Resumed at step" if cp.load_or_save() else "Started at step", int(step))

for _ in range(10):
    model.weights += 0.1
    step.increment()
    cp.save()
