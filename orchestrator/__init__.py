"""What happens, in which order: from an experiment file to a champion.

The command line reads the two files, the pipeline runs the stages, records keep what came of them, and
reports and MLflow show it.
"""

__version__ = "0.1.0"
