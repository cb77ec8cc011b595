"""The class of points in time, also where a program has replaced it, as freezegun does.

The library is imported when it is used, which may be after that.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime as datetime
else:
    from _datetime import datetime as datetime
