"""The small language behind the embedded tasks: its words, its town, its grammar and its parser."""
