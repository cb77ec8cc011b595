"""An environment in the middle of an episode ⇄ plain data, without pickle.

The **walk** goes through the graph of objects that an environment reaches: a **node**
for each object, by what it **is**: attributes, items, cells of a closure. A **family**
knows objects of one library, whose state is not in Python. To load is to walk the saved
graph beside the live one, twice: all is **checked**, then the live objects are
**filled** in place, so that what others hold of them stays valid.
"""

__all__ = []
