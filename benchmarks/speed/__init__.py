"""How fast textenv learns beside other libraries, and what bounds it: `python -m benchmarks.speed`."""
