"""What judges: simulated raters, the comparisons they label, and the reward models learned from them."""
