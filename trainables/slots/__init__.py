"""Workers that stay up between trials, the broker that hands them jobs, and what Tune sees of them."""
