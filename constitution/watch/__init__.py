"""The watch: its statistical test, what it is fed with, and the evidence that its verdict rests on. Pure."""
