"""Everything about a run that can be derived and checked before anything is trained or written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.config import RunConfig, plain_values
from unipet.errors import UnipetError
from unipet.output.stopwatch import importing
from unipet.runs.devices import check_parts
from unipet.runs.identity import content_of, run_id
from unipet.runs.record import Identity, Record
from unipet.runs.reducer_checks import check_reducers
from unipet.runs.run_directory import is_whole, record_in, run_directory

if TYPE_CHECKING:
    from unipet.calculus.method import Method
    from unipet.calculus.sites import Architecture
    from unipet.tasks import TaskData
    from unipet.training.budget.parameters import ParameterFit


@dataclass(frozen=True)
class Prepared:
    """A run whose configuration, data and base model have been checked. Nothing has been written yet.

    It holds everything that a run derives from its configuration. Later steps read it here and derive nothing again.
    """

    config: RunConfig  # with every option of the method
    method: Method  # as requested, before fitting to the budget
    sites: Architecture | None  # the user's own site table, checked on this base model
    fit: ParameterFit  # the method after fitting to the budget
    data: TaskData
    content: Identity  # what run_id covers besides the configuration
    resolved: dict[str, Any]  # `config` as plain values
    run_id: str
    directory: Path

    def with_seed(self, seed: int) -> Prepared:
        """The same run with another seed: only its identity and its directory differ."""
        return self._but(replace(self.config, seed=seed))

    def earlier_rung(self) -> Prepared | None:
        """The same run that ended at the rung from which this one goes on; None where it begins at its beginning."""
        trial = self.config.trial
        if not trial.after:
            return None
        return self._but(replace(self.config, trial=replace(trial, until=trial.after)))

    def _but(self, config: RunConfig) -> Prepared:
        return _identified(config, self.method, self.sites, self.fit, self.data, self.content)


def prepare(config: RunConfig) -> Prepared:
    """Check everything that can be checked without training: settings, method, task data, base model, and the method's
    sites on it. Writes nothing. Raises `UnipetError` for the first mistake."""
    with importing():
        from unipet.calculus.library import load_method
        from unipet.calculus.site_files import sites_for
        from unipet.compose.imports import import_modules
        from unipet.compose.parse_run_config import check_run_config
        from unipet.runs.base_model import skeleton
        from unipet.runs.sharding_checks import check_sharding
        from unipet.runs.storage import check_storage
        from unipet.runs.tracking import check_tracking
        from unipet.tasks import KINDS, input_length, load_task
        from unipet.training.budget.checkpointing import check_checkpointing
        from unipet.training.budget.parameters import fit_parameters
        from unipet.training.compiling import check_compile
        from unipet.training.lr_ratio import up_tensors
        from unipet.training.positions import check_max_length
        from unipet.training.precision import chosen_precision

    check_run_config(config)
    check_parts(config.budget.gpus, config.optim.batch_size)
    check_tracking(config.tracking)
    check_trial(config)
    import_modules(config.imports)
    method = load_method(config.method)
    check_reducers(method, config.task)
    if not method.trains and not KINDS[config.task.kind].pretrained_head:
        raise UnipetError(
            f"method={method.name} trains nothing, but the output layer of task.kind={config.task.kind} is new, so its answers "
            "would be random. Choose a prompt, such as task=sst2_prompt (`unipet list tasks`)."
        )
    # What "auto" chooses on this device is what the run is: another device may choose otherwise.
    config = replace(config, method=method.to_dict(), precision=chosen_precision(config.precision))
    check_compile(config, method)
    data = load_task(config.task)
    # From here on, mistakes that only the base model shows are found, without its weights.
    built = skeleton(config.model, config.task.kind, data.labels)
    check_max_length(config.task, built)
    check_checkpointing(built, config.checkpointing)
    sites = sites_for(built, config.model.sites)
    fit = fit_parameters(method, built, config.budget, sites, input_length(config.task))
    check_storage(config, fit.draft.inserted)
    check_sharding(config, method, fit.draft.inserted)
    if config.optim.lr_ratio != 1.0:
        up_tensors(fit.draft.inserted)
    content = content_of(config, method, sites, data.fingerprint)
    return _identified(config, method, sites, fit, data, content)


def check_trial(config: RunConfig) -> None:
    """Raise `UnipetError` for a trial without a split of its own to be scored on, or with rungs out of order."""
    trial = config.trial
    if trial.scored_on == "selection" and config.task.selection == "none":
        raise UnipetError(
            "trial.scored_on=selection: task.selection=none holds no examples out, and the reported ones are not for choosing. "
            "Use task.selection=train_holdout, or validation with task.selection_split."
        )
    if trial.after >= trial.until:
        raise UnipetError(f"trial.after={trial.after:g}: it must be less than trial.until={trial.until:g}.")


def _identified(
    config: RunConfig,
    method: Method,
    sites: Architecture | None,
    fit: ParameterFit,
    data: TaskData,
    content: Identity,
) -> Prepared:
    """The prepared run with its plain values, its `run_id` and its directory."""
    resolved = plain_values(config)
    identity = run_id(resolved, content)
    directory = run_directory(config, fit.method.name, identity)
    return Prepared(config, method, sites, fit, data, content, resolved, identity, directory)


def finished_record(prepared: Prepared) -> Record | None:
    """The record of an earlier run with the same `run_id`, if it has finished and all its files are present."""
    record = record_in(prepared.directory)
    if record is None or record.run_id != prepared.run_id or not is_whole(prepared.directory, record):
        return None
    return record
