"""The time of the event loop, without asking which loop.

asyncio's and uvloop's clocks are both the system's monotonic one, so deadlines by `now` suit cancel
scopes. `anyio.current_time` says the same, but first finds out in which library it runs, which costs as much
as a good part of a call; use this one where a call passes.
"""

from __future__ import annotations

import time

now = time.monotonic
