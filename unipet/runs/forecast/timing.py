"""From a calibration to the time of one job, by its number of steps, its batches and its evaluation."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

from unipet.config import RunConfig
from unipet.runs.forecast.estimate import Point, mean_cost
from unipet.runs.forecast.measuring import Calibration
from unipet.runs.forecast.selected import batch_size_in_tokens
from unipet.tasks import Encoded, EncodedRows
from unipet.training.best import scored_after
from unipet.training.budget.limits import batch_tokens, count_steps, seconds_allowed
from unipet.training.forward import longest_first
from unipet.training.sampler import GroupedOrder
from unipet.training.schedule import warmup_steps

if TYPE_CHECKING:
    from unipet.runs.forecast.job import JobForecast

_SOME = 2000  # batches from which the mean size is computed; more would not change it


def add_times(
    job: JobForecast, config: RunConfig, encoded: Encoded, calibration: Calibration, encoder_decoder: bool
) -> None:
    """Fill in steps, operations and seconds of a job. `encoder_decoder` says whether its base model is one."""
    order = GroupedOrder(encoded.train.lengths, config.optim.batch_size, config.seed)
    steps, stopped_by = count_steps(
        len(encoded.train), config, batch_tokens(encoded.train, order.batches(), encoder_decoder)
    )
    sizes = [
        batch_size_in_tokens(encoded.train, each, encoder_decoder)
        for each in islice(order.batches(), min(steps, _SOME))
    ]
    mean = sum(sizes) / len(sizes)
    step_s = mean_cost(calibration.steps, mean)
    allowed = seconds_allowed(config.budget)
    if allowed is not None and steps * step_s > allowed:
        steps, stopped_by = max(1, math.ceil(allowed / step_s)), "gpu_hours"
    job.steps, job.stopped_by, job.step_ms = steps, stopped_by, 1000 * step_s
    job.flops = steps * mean_cost(calibration.flops, mean)
    job.seconds |= calibration.fixed_s
    job.seconds["training"] = steps * step_s
    if encoded.selection is not None:
        warmup = warmup_steps(config.optim.warmup_ratio, steps)
        most = config.task.selection_checkpoints
        times = sum(scored_after(step, steps, warmup, most) for step in range(1, steps + 1))
        job.at_most = config.task.patience is not None
        job.seconds["selecting"] = times * _evaluation(
            calibration.losses or calibration.passes, config, encoded.selection, encoder_decoder
        )
    job.seconds["evaluating"] = sum(
        _evaluation(calibration.passes, config, split, encoder_decoder)
        for split in (encoded.evaluation, *encoded.others.values())
    )


def _evaluation(passes: list[Point], config: RunConfig, split: EncodedRows, encoder_decoder: bool) -> float:
    batches = list(longest_first(split, config.optim.eval_batch_size))
    sizes = [batch_size_in_tokens(split, each, encoder_decoder) for each in batches]
    return len(batches) * mean_cost(passes, sum(sizes) / len(sizes))
