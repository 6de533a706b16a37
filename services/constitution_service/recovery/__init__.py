"""Rebuilds the lost data of one system from the signed evidence of the others."""
