"""Looks at saves, and removes them, without objects: functions of the public face.

**Contents** are the leaves of a save by name. A **path** may be an address, such as
`DIR@best`. Results are reports.
"""

__all__ = [
    "contents",
    "disk_usage",
    "doctor",
    "following",
    "infos",
    "removal",
    "statistics",
    "values",
    "verification",
]
