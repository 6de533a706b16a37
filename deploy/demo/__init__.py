"""``make demo``: the whole story on real servers; one good constitution goes live, two bad ones are undone."""
