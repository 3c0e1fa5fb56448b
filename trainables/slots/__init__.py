"""Workers that stay up between trials: the pool that starts them, and the broker that hands them jobs.

What Tune sees of a trial is here too; modules that both sides import are free of torch.
"""
