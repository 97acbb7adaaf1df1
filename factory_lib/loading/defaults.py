"""What `to_torch` does where nobody says otherwise, and must be known without importing torch."""

from __future__ import annotations

Shape = tuple[int, int]
"""(height, width) in pixels."""
SIZES = ("width", "height")
"""Names of the columns with the sizes of pictures."""
MAX_BROKEN = 0.25
"""Share of broken samples above which an epoch ends with an error."""
