"""The verbs of the command line, a module per group. Each imports what it needs when it runs, not before."""
