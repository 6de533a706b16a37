"""The watch: its statistical test, its input, and the evidence of its verdict. Pure."""
