"""What our HTTP clients' library asks several times in each request must be at hand, not searched for."""

import sys

from httpcore import _synchronization


async def test_httpcore_finds_sniffio_without_a_search() -> None:
    """Where it is missing, each lock of httpcore scans every folder of ``sys.path``: a quarter of a request's cost."""
    assert _synchronization.current_async_library() == "asyncio"
    assert "sniffio" in sys.modules
