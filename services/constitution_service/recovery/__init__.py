"""Rebuilding what a system lost, from the signed evidence of the others."""
