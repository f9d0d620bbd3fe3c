"""The benchmark: cells are planned, run by an engine, kept as rows, and read back for tables and plots."""
