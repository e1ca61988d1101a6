"""Where the randomness of pauses comes from."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["JITTER"]

#: One for all, since the state of one is larger than the rest of a reader.
JITTER: Final = random.Random()
