"""The top floor: the command line, the verbs behind it and what they report."""
