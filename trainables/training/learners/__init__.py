"""The networks of a course while they are trained: what they are asked, and what trains them."""
