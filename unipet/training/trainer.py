"""One training: its parts put together, begun at the beginning or after a resume point, and what it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from unipet.adaptation.api import adaptation, frozen, parameters, stored
from unipet.calculus.objectives import L2ToInit, Objective
from unipet.config import RunConfig
from unipet.output.stopwatch import phase
from unipet.tasks import Collate, Readout, read_rows
from unipet.training.best import PATIENCE, Best, Patience
from unipet.training.budget.checkpointing import checkpointed
from unipet.training.budget.limits import batch_tokens, count_steps, seconds_allowed
from unipet.training.callbacks import Clock, GradientProbe, Journal, Log, Routes, ShownProgress, TimeLimit
from unipet.training.company import Company
from unipet.training.compiling import Compiled
from unipet.training.expert_use import ExpertUse
from unipet.training.forward import Examples, lengths, model_inputs
from unipet.training.frozen_cache import FrozenCache
from unipet.training.loop import Arguments
from unipet.training.loss_scale import LossScale
from unipet.training.lr_ratio import up_tensors
from unipet.training.movement import Movement
from unipet.training.objective_trainer import ObjectiveTrainer
from unipet.training.processes import one_process
from unipet.training.ranks import ALONE, OwnDropout, Ranks
from unipet.training.resume_point import Part, ResumePoint, ResumePoints
from unipet.training.resuming import OPTIMISER, Optimiser, Resumption, RungReached, Spent, Weights
from unipet.training.sampler import GroupedOrder
from unipet.training.schedule import rung_step, warmup_steps
from unipet.training.sharding import Sharded, Sharding
from unipet.training.start_values import StartValues
from unipet.training.step import Loss
from unipet.training.stopping import end_if_asked, ending_steps_first
from unipet.training.tally import Tally
from unipet.training.teachers import put_beside


@dataclass
class Trained:
    """The cost of one training, and how it ended."""

    steps: int = 0
    seconds: float = 0.0  # of the steps alone
    tokens: int = 0  # without padding; an example seen in two views counts once
    stopped_by: str = (
        "epochs"  # epochs | max_steps | max_tokens | gpu_hours | task.patience | rung | nothing trains (zero-shot)
    )
    untrained: list[str] = field(default_factory=list)  # trainable tensors that got no gradient or did not move
    measured: dict[str, Any] = field(default_factory=dict)  # what `measure` answered
    experts: dict[str, Any] = field(default_factory=dict)  # of mixtures: their use over time, and which have collapsed
    compiled: dict[str, Any] | None = None  # a `CompileReport`; after an interruption, of the last process
    frozen: dict[str, Any] = field(default_factory=dict)  # what was kept of frozen layers
    packed: int = 0  # the most runs that trained together, this one included; 0: none did


@phase("training")
@one_process()
def train(
    model: nn.Module,
    objective: Objective,
    examples: Examples,
    collate: Collate,
    regression: bool,
    config: RunConfig,
    directory: Path,
    metrics: TextIO,
    log: Log,
    read: Readout = read_rows,
    best: Best | None = None,
    micro_batch: int | None = None,
    checkpointing: bool = False,
    points: ResumePoints | None = None,
    begin: ResumePoint | None = None,
    measure: Callable[[], dict[str, Any]] = dict,
    ranks: Ranks = ALONE,
    company: Company | None = None,
    teachers: Mapping[str, nn.Module] = MappingProxyType({}),
    class_weights: Sequence[float] = (),
) -> Trained:
    """Train every parameter of `model` that requires a gradient, in place. The model stays on the training device.

    `read` finds the answers in the model's output. `best` scores checkpoints on the selection split; that time does not
    count as training. A step splits its batch into micro-batches of `micro_batch` examples (None: the whole batch). This
    changes only memory and the random draws of dropout. With `checkpointing`, activations are computed again in the
    backward pass instead of stored. At every log interval, one line is written to `metrics` as JSON and passed to
    `log(values, step)`. Two runs with the same seed see the same data order and the same dropout.
    Training begins after `begin`, one of the `points` that it writes every `config.checkpoint.every`, and at its end.
    `measure` is asked once, when the last step is over. Each process of `ranks` calls this, and takes its part of every
    batch; the first alone has `points` and `best`. `teachers` are the models of the objective's distillations, by name,
    and `class_weights` those of the labels in the task's loss (none: all count alike).
    `company` may compute the gradients of each step. Raises `Diverged` for a loss that is not finite, `UnipetError` if no
    tensor ever had a gradient or none moved, and `Interrupted` if a signal ended it between two steps.
    """
    if not parameters(model, head=True):
        return Trained(stopped_by="nothing trains", measured=measure())
    optim, company = config.optim, company or Company()

    def some() -> dict[str, Tensor]:
        return model_inputs(model, collate([examples[0]]))[0]

    # Before anything goes to a device that has no room for the whole base model.
    sharding = Sharding() if config.model.shard == "none" or ranks.count == 1 else Sharded(model, ranks, some)
    order = GroupedOrder(lengths(examples), optim.batch_size, config.seed)
    both = bool(getattr(model.config, "is_encoder_decoder", False))
    steps, stopped_by = count_steps(len(examples), config, batch_tokens(examples, order.batches(), both))
    arguments = Arguments(
        max_steps=steps,
        batch_size=optim.batch_size,
        learning_rate=optim.lr,
        warmup_steps=warmup_steps(optim.warmup_ratio, steps),
        weight_decay=optim.weight_decay,
        adam_beta1=optim.beta1,
        adam_beta2=optim.beta2,
        adam_epsilon=optim.epsilon,
        max_grad_norm=optim.clip,
        seed=config.seed,
        device=torch.device("cuda:0" if torch.cuda.is_available() else "cpu"),
    )
    probe, clock, progress, journal = GradientProbe(model), Clock(), ShownProgress(), Journal(metrics, log)
    learning = parameters(model, head=True)
    routes, movement, use = Routes(model, config.seed, ranks.rank), Movement(learning), ExpertUse(model)
    if best is not None:
        best.journal = journal

    def seconds() -> float:
        return clock.so_far() - (best.seconds if best else 0.0)

    hours = TimeLimit(seconds_allowed(config.budget), seconds, ranks)
    parts: dict[str, Part] = {
        "probe": probe,
        "clock": clock,
        "journal": journal,
        "routes": routes,
        "movement": movement,
        "use": use,
    }
    parts |= {"company": company, "weights": Weights(model), "spent": Spent(), **({"best": best} if best else {})}
    rung = rung_step(config.trial.until, steps)
    patience = Patience(config.task.patience, config.task.selection_checkpoints, best, ranks, sharding)
    resumption = Resumption(points, config.checkpoint.every, parts, rung)
    trainer = ObjectiveTrainer(
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=examples,
        callbacks=[
            resumption,  # first: a resume point comes before all that begins a step
            sharding,  # the passes that it follows are over before the step's routes and dropout are drawn
            routes,
            OwnDropout(ranks, config.seed),
            probe,
            use,
            clock,
            *([progress] if company.shows else []),
            journal,
            hours,
            *([best] if best else []),  # late, because it checks whether an earlier callback has ended training
            patience,
        ],
    )
    if begin is not None and begin.outcome is not None:
        return Trained(**resumption.finish(begin))
    start = dict[str, Tensor]()
    compiled = Compiled(model) if config.compile else None
    told = (objective, regression, optim.label_smoothing, config.precision, read, teachers, start)
    loss = Loss(*told, class_weights=class_weights)
    trainer.loss = loss if compiled is None else replace(loss, call=compiled)
    put_beside(teachers, model, arguments.device)
    trainer.order, trainer.micro_batch, trainer.lr_ratio = order, micro_batch or optim.batch_size, optim.lr_ratio
    trainer.schedule, trainer.tally = optim.schedule, Tally(arguments.device, objective.terms)
    trainer.company = company
    trainer.ranks, trainer.learning = ranks, list(learning.values())
    trainer.passes_alike = isinstance(sharding, Sharded)
    parts |= {"tally": trainer.tally, OPTIMISER: Optimiser(trainer)}
    if config.precision == "fp16":
        trainer.loss_scale = parts["loss_scale"] = LossScale()
    cache = FrozenCache(model, examples, collate, config, steps)
    company.keeps(cache.layers)
    trainer.add_callback(cache)
    if optim.lr_ratio != 1.0:
        trainer.faster = {id(tensor) for tensor in up_tensors(adaptation(model))}
    trainer.idle = adaptation(model).routing.stepping()
    if begin is not None:
        order.begin_after(begin.step)
        resumption.take_up(begin)
    ranks.begin_alike([*stored(model).values(), *frozen(model).values()])
    if objective.of(L2ToInit):
        parts["start"] = values = StartValues(learning)
        start.update(values.values)
    try:
        with cache.in_use(), checkpointed(model, checkpointing), ending_steps_first():
            trainer.train()
    except RungReached:
        clock.stop()
        if best is not None:
            best.check(trainer.state.global_step)
    finally:
        progress.close()
    sharding.together()
    ranks.check_alike(learning)
    sharding.lead()
    sharding.follow_to_the_end()
    probe.check()
    still = movement.check(list(parameters(model)), optim.lr, trainer.state.global_step)
    trained = Trained(
        steps=trainer.state.global_step,
        seconds=clock.seconds - (best.seconds if best else 0.0),
        tokens=trainer.tally.tokens,
        stopped_by=PATIENCE
        if patience.exhausted
        else "rung"
        if trainer.state.global_step == rung
        else "gpu_hours"
        if hours.reached and trainer.state.global_step < steps
        else stopped_by,
        untrained=sorted({*probe.untouched(), *still}),
        measured=measure(),
        experts=use.report(),
        compiled=None if compiled is None else asdict(compiled.report()),
        frozen=cache.record(),
        packed=company.packed,
    )
    if patience.exhausted or trained.steps != rung:  # whose point is there already, for the rung that comes after
        resumption.write(trained.steps, asdict(trained))
    end_if_asked(" after training")
    return trained
