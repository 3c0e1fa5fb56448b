"""`python -m orchestrator`: the command line, also inside Ray jobs."""

from orchestrator.cli import main

if __name__ == "__main__":
    main()
