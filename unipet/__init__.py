"""unipet: experiments in parameter-efficient fine-tuning, with methods as YAML compositions of four design dimensions.

report = unipet.adapt(model, method)      # in place, all or nothing: a method's name, a YAML file, or a mapping
unipet.parameters(model)                  # what the method owns, by name
unipet.save(model, "out/")                # and unipet.load(base_model, "out/")
unipet.merge(model)                       # fold into the base weights, or
unipet.eject(model)                       # take out and restore the base model bit for bit
unipet.use(model, "a")                    # one of several adaptations, adapt(..., name="a"); unipet.adaptations(model)
unipet.rows(model, ["a", None, "b"])      # or one for each row of a batch; with unipet.disabled(model): the base model
unipet.describe(method, config_or_model)  # the report without weights
unipet.export_peft(model, "out/")         # for peft, where it can express the method; unipet.import_peft reads it

unipet.sweep({"optim.lr": [1e-3, 1e-4], "seed": [0, 1]})    # run every combination; a pandas DataFrame of the runs
unipet.results("runs")                                      # the runs below a directory as such a table
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unipet.errors import UnipetError

if TYPE_CHECKING:
    from unipet.adaptation.adapters_library.directories import import_adapters as import_adapters
    from unipet.adaptation.api import adapt as adapt
    from unipet.adaptation.api import eject as eject
    from unipet.adaptation.api import parameters as parameters
    from unipet.adaptation.checkpoint import load as load
    from unipet.adaptation.checkpoint import save as save
    from unipet.adaptation.describing import describe as describe
    from unipet.adaptation.merging import merge as merge
    from unipet.adaptation.peft.directories import export_peft as export_peft
    from unipet.adaptation.peft.directories import import_peft as import_peft
    from unipet.adaptation.report import AdaptReport as AdaptReport
    from unipet.adaptation.serving import adaptations as adaptations
    from unipet.adaptation.serving import disabled as disabled
    from unipet.adaptation.serving import rows as rows
    from unipet.adaptation.serving import use as use
    from unipet.calculus.functions import register_function as register_function
    from unipet.calculus.library import load_method as load_method

__version__ = "0.1.0"

#: Public name -> its module, which is imported on first use, because importing torch takes a second. No module of this
#: package may have the name of a function here: importing the module would replace the function.
_HOME = {
    "adapt": "unipet.adaptation.api",
    "eject": "unipet.adaptation.api",
    "parameters": "unipet.adaptation.api",
    "save": "unipet.adaptation.checkpoint",
    "load": "unipet.adaptation.checkpoint",
    "describe": "unipet.adaptation.describing",
    "export_peft": "unipet.adaptation.peft.directories",
    "import_peft": "unipet.adaptation.peft.directories",
    "import_adapters": "unipet.adaptation.adapters_library.directories",
    "load_method": "unipet.calculus.library",
    "merge": "unipet.adaptation.merging",
    "adaptations": "unipet.adaptation.serving",
    "use": "unipet.adaptation.serving",
    "disabled": "unipet.adaptation.serving",
    "rows": "unipet.adaptation.serving",
    "register_function": "unipet.calculus.functions",
    "AdaptReport": "unipet.adaptation.report",
    "results": "unipet.report.data_frame",
    "sweep": "unipet.sweeps.from_python",
}

__all__ = ["UnipetError", "__version__", *_HOME]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'unipet' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
