"""Deterministic order, waiting and compensation; imports no driver."""
