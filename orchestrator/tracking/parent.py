"""What the parent run says about an experiment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.terminal.masking import data_without_secrets
from orchestrator.tracking.names import SHORT, flat_params
from orchestrator.tracking.views import RANKED_FILTER, filtered_runs_url, ranked_runs_url, view_names
from trainables.config.metrics import RankBy


@dataclass(frozen=True)
class ParentFacts:
    """What the parent run says about the experiment."""

    name: str
    config: Mapping[str, Any]
    """The whole experiment as plain data; kept as the artifact `experiment.json`."""
    searched: Collection[str] = ()
    """Flat names that trials vary (`student.width`, `training.lr`); they are no constants of the parent."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Further constants: fingerprints of teacher and cache, objective, scheduler."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the libraries and of the code, by name."""
    summary: str = ""
    """One or two sentences in Markdown: what this experiment is."""
    rank_by: RankBy = RankBy.ACCURACY
    """The figure that students are ranked by."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Further tags: the code's version, the hardware."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts that the run keeps, by the name of their file."""

    def params(self) -> dict[str, str]:
        """The constants of the experiment, flat, as MLflow parameters."""
        flat = flat_params(self.config) | flat_params(self.constants)
        return {name: value for name, value in flat.items() if name not in self.searched}

    def document(self) -> dict[str, Any]:
        """The configuration without secrets, as that of a tracking URI."""
        return dict(data_without_secrets(self.config))

    def description(self, experiment_id: str) -> str:
        """The parent's note in Markdown: what it is, and how to find its students."""
        ranked = ranked_runs_url("", experiment_id)
        filtered = filtered_runs_url("", experiment_id, self.rank_by)
        views = ", ".join(f"*{name}*" for name in view_names())
        return (
            f"## {self.name}\n\n{self.summary or 'A distillation experiment.'}\n\n"
            f"[Students, finalists and controls, best first]({ranked}) · [the same by filter]({filtered})\n\n"
            f"The menu *Views* of the page with the runs has {views}.\n\n"
            f"Filter: `{RANKED_FILTER}`, sorted by `rank`, and while the search goes on by "
            f"`{SHORT[self.rank_by]}`, the {self.rank_by.label} on the selection split at the best epoch. "
            "`rank` counts the champion first, then the other finalists by their means over seeds, then the "
            "trials of the search; `pareto` is the front on which a student stands in figure, latency and "
            "parameters, 1 where no other beats it in all three; `within_budget` is 1 where it meets the "
            "constraints. Runs of the kind `group` are finalists and controls as a "
            "whole, with their seeds below. Pruned students are KILLED, those that broke are FAILED with "
            "the tag `reason`. The tag `kind` tells trials of the search from finalists and controls, and "
            "the tag `champion`, with a star before the name, marks the student to ship, whose means over "
            "its seeds are this run's figures `champion_...`. "
            "Constants are this run's parameters; a student's parameters are what the search varied. A "
            "finalist's `gain_over_control` is that figure on the test split less that of the run whose "
            "`trial_id` is in its tag `control`: cross-entropy with the same architecture, epochs and seed. "
            "`gain_same_compute` is that over the run in its tag `same_compute_control`, where there is one: "
            "cross-entropy for more epochs, which compute as much as the finalist's."
        )
