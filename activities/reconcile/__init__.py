"""Reconciliation as activities: comparisons, repairs, and findings for a person."""
