"""Everything that is stored before a release: artifacts, change requests and evidence."""
