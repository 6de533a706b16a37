"""Generations: signed records of what was given out, and the guard that never gives a number out twice."""
