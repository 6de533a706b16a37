"""One module per runbook step; each activity is safe to run twice."""
