"""What is filed before a release: artifacts, change requests and evidence."""
