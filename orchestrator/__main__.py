"""The command line: `stillhouse`, and `python -m orchestrator`, also inside Ray jobs."""

from orchestrator.own_packages import settle


def start() -> None:
    """Run the command line, with our packages and not with files of the user that have their names."""
    settle()
    # Late: the command line imports those packages.
    from orchestrator.cli import main

    main()


if __name__ == "__main__":
    start()
