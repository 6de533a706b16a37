"""How good the watch's test is, and its rivals on the same streams: ``python -m bench.watch --runs 200``."""
