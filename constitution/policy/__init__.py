"""What a constitution says: its document, its rules and their language, and how a draft of one is checked. Pure."""
