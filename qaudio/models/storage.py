"""What stores, fetches and publishes networks, for `AudioModel`'s methods.

Entries lie above networks, which know nothing of them: the package gives these in its `__init__`.
"""

from collections.abc import Callable
from typing import Any

save: Callable[..., Any]
load: Callable[..., Any]
push: Callable[..., Any]
