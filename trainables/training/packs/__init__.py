"""Several students of one shape that are trained as one: a pack, in which each student has a lane.

One forward pass, one backward pass and one step of the optimiser serve all lanes; weights, batches, rates and
hyper-parameters are each lane's own.
"""
