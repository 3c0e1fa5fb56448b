"""What of an experiment and its space turns images by quarters, which only square images bear."""

from __future__ import annotations

from orchestrator.config.asked_features import taught_objectives
from orchestrator.config.schema import ExperimentConfig
from search_spaces.space import SpaceConfig
from trainables.config import OBJECTIVE_CONFIGS
from trainables.config.representation.preparation import PreparedTraining
from trainables.config.views import TURNED_BANKS, QuarterTurnStep, RotationStep, base_of

WEAK = "weak"
"""The bank that every teacher, control and student sees."""


def what_turns(config: ExperimentConfig, space: SpaceConfig) -> tuple[str, ...]:
    """Objectives with turned banks or preparations, a teacher's own, and steps of recipes, in words.

    Only the recipes of banks that somebody sees count.
    """
    found, seen = [], {WEAK: None}
    for name in space.objective_names:
        objective = OBJECTIVE_CONFIGS[name]
        banks = dict.fromkeys((*objective.banks, *objective.teacher_banks))
        seen |= dict.fromkeys(base_of(bank)[0] for bank in banks)
        turned = [bank for bank in banks if bank in TURNED_BANKS]
        asked = [f"bank{'s' * (len(turned) > 1)} {', '.join(turned)}"] * bool(turned)
        asked += [f"a teacher prepared with {objective.preparation}"] * (objective.preparation is not None)
        if asked:
            found.append(f"objective {name} of space {space.name} ({' and '.join(asked)})")
    made = config.each_teacher if taught_objectives(space) else ()
    if any(teacher.prepared is PreparedTraining.JOINT_BRANCHES for teacher in made):
        found.append(f"teacher.prepared ({PreparedTraining.JOINT_BRANCHES})")
    for bank in seen:
        for place, step in enumerate(config.views.bank(bank).recipe):
            if isinstance(step, RotationStep | QuarterTurnStep):
                found.append(f"views.{bank}.recipe[{place}] ({step.op})")
    return tuple(found)
