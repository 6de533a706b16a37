"""What a release costs without Temporal: the same calls by a bare script, by DBOS and by Prefect."""
