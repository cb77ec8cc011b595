"""The report page: one HTML file about a directory of saves.

`data` gathers what the page shows, from manifests and from the arrays that fit into the
budget. `template.html` has the style and the script, which draws the pictures.
"""

__all__ = []
