"""Weights of experts that data decide once training is over: reducers `greedy_soup` and `fisher`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unipet.adaptation.reducing import experts_of, mixtures, weighing
from unipet.calculus.bank import Bank
from unipet.config import RunConfig
from unipet.output.stopwatch import phase
from unipet.tasks import Encoded, TaskData, collate, kind_of, readout
from unipet.training.evaluation import selection_score
from unipet.training.forward import evaluation_mode, model_inputs, to_device

EXAMPLES = 256  # of the training set, from which Fisher information is estimated
FLOOR = 1e-6  # of the mean Fisher information of a tensor: where no expert depends on a number, they count alike


def settle(config: RunConfig, model: nn.Module, data: TaskData, encoded: Encoded, tokenizer: Any) -> dict[str, Any]:
    """Decide the weights of every mixture whose reducer asks for it, in place. Returns what the record says of it."""
    banks: dict[str, list[Bank]] = {"greedy_soup": [], "fisher": []}
    for item, mixture in mixtures(model):
        banks.setdefault(mixture.reduces, []).append(item.bank)
    found: dict[str, Any] = {}
    with phase("experts"):
        if banks["greedy_soup"]:
            score = selection_score(config, model, data, encoded, tokenizer)
            found["soup"] = soup = greedy_soup(model, score)
            for bank in banks["greedy_soup"]:
                for name in bank.settled.values():
                    weights_M = bank.home.parameter(name)
                    taken = {expert % len(weights_M) for expert in soup}
                    weights_M.data.copy_(torch.tensor([float(expert in taken) for expert in range(len(weights_M))]))
        if banks["fisher"]:
            found["fisher_examples"] = fisher(config, model, banks["fisher"], encoded, tokenizer)
    return found


def greedy_soup(model: nn.Module, score: Callable[[], float]) -> list[int]:
    """The experts whose mean scores highest when they are added one by one, the best ones first, each kept unless it lowers the
    score (Wortsman et al. 2022, recipe 1). `score` is of the selection split, higher is better."""
    count = experts_of(model)

    def of(experts: list[int]) -> float:
        with weighing(model, [float(expert in experts) for expert in range(count)]):
            return score()

    alone = [of([expert]) for expert in range(count)]
    first, *others = sorted(range(count), key=lambda expert: -alone[expert])
    soup, best = [first], alone[first]
    for expert in others:
        if (now := of([*soup, expert])) >= best:
            soup, best = [*soup, expert], now
    return soup


def fisher(config: RunConfig, model: nn.Module, banks: list[Bank], encoded: Encoded, tokenizer: Any) -> int:
    """Set the weights of `banks` to the diagonal Fisher information of each expert, E[(∂ log p(y|x) / ∂θ)²] (Matena and Raffel
    2022, eq. 3), over training examples x and one answer y for each, drawn from the expert's own p; for numbers, p is a normal
    distribution around the output, and E over y is exact. Returns the number of examples."""
    count = min(EXAMPLES, len(encoded.train))
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(encoded.train), generator=generator)[:count].tolist()
    batch, read = collate(tokenizer), readout(config.task, tokenizer)
    own = [(bank, key, name) for bank in banks for key, name in bank.settled.items()]
    with evaluation_mode(model) as device:
        for expert in range(experts_of(model)):
            copies: list[Tensor] = [bank.home.parameter(bank.names[key, expert % _size(bank)]) for bank, key, _ in own]
            sums = [torch.zeros_like(copy) for copy in copies]
            with weighing(model, [float(each == expert) for each in range(experts_of(model))]), torch.enable_grad():
                for index in chosen:
                    inputs, labels = model_inputs(model, to_device(batch([encoded.train[index]]), device))
                    logits, _ = read(model(**inputs).logits, inputs, labels)
                    value = _log_likelihood(logits.float(), kind_of(config.task.kind).answer, generator)
                    gradients = torch.autograd.grad(value, copies, allow_unused=True)
                    for total, gradient in zip(sums, gradients, strict=True):
                        if gradient is not None:
                            total += gradient.square() / count
            for (bank, _, name), total in zip(own, sums, strict=True):
                if expert < _size(bank):
                    bank.home.parameter(name).data[expert] = total
    for bank, _, name in own:
        information = bank.home.parameter(name).data
        mean = float(information.mean())
        information += FLOOR * mean if mean > 0 else 1.0
    return count


def _size(bank: Bank) -> int:
    assert bank.mixture is not None
    return bank.mixture.experts


def _log_likelihood(logits_NC: Tensor, answer: str, generator: torch.Generator) -> Tensor:
    """A number whose gradient, squared, is one draw of the Fisher information. `answer` is the form of the kind's answers."""
    if answer == "number":
        return logits_NC.sum()
    if answer == "label_set":
        drawn_NC = torch.bernoulli(logits_NC.detach().sigmoid().cpu(), generator=generator).to(logits_NC.device)
        return -functional.binary_cross_entropy_with_logits(logits_NC, drawn_NC, reduction="sum")
    drawn_N = torch.multinomial(logits_NC.detach().softmax(-1).cpu(), 1, generator=generator).squeeze(1)
    return logits_NC.log_softmax(-1).gather(1, drawn_N.to(logits_NC.device).unsqueeze(1)).sum()
