"""The maths that algorithms share: pure functions of tensors, masked and shape-checked.

Rows are responses and columns their tokens. A mask covers the columns from 0 up to the end of
each response; what stands in the other columns is never looked at and comes back as 0.
"""
