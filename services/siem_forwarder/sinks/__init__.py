"""Where events go. Each sink says what its acknowledgement is worth."""
