"""Reconciliation as activities: what is compared, what is put right, and what is named to a person."""
