"""The domain: what a constitution is and what may become of it. No I/O, no clock, no environment."""
