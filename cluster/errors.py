"""The one error of this package."""


class ClusterError(Exception):
    """A cluster that cannot be reached, cannot hold what is asked, or refuses it; says what to do next."""

    exit_code = 1
