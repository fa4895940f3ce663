"""The table of peft's types that act at linear layers, and why others that peft has are not in it."""

from __future__ import annotations

from unipet.adaptation.peft.butterfly_forms import ButterflyForm
from unipet.adaptation.peft.drawn_forms import RandomBasesForm, RandomLowRankForm
from unipet.adaptation.peft.entry_forms import HashedForm
from unipet.adaptation.peft.form import Form
from unipet.adaptation.peft.forms import HadamardProductForm, KroneckerForm, LowRankForm, VectorForm
from unipet.adaptation.peft.made_forms import NormalisedForm, ProjectionForm
from unipet.adaptation.peft.map_forms import BiasForm, BlockSumForm, CirculantForm, GridForm, HadamardForm, NetworkForm
from unipet.adaptation.peft.placed_forms import FourierForm, SparseForm, WaveletForm
from unipet.adaptation.peft.shared_forms import SingularCoreForm, VectorBankForm
from unipet.adaptation.peft.turning_forms import PlaneRotationForm, ReflectionForm, RotationForm

#: Of two forms with one function, the first that can say an insertion is taken.
FORMS: tuple[Form, ...] = (
    LowRankForm(),
    RandomLowRankForm(),
    RandomBasesForm(),
    HashedForm(),
    SingularCoreForm(),
    VectorBankForm(),
    SparseForm(),
    FourierForm(),
    WaveletForm(),
    VectorForm(),
    HadamardProductForm(),
    KroneckerForm(),
    HadamardForm(),
    BlockSumForm(),
    CirculantForm(),
    GridForm(),
    NetworkForm(),
    BiasForm(),
    RotationForm(),
    ReflectionForm(),
    PlaneRotationForm(),
    ButterflyForm(),
    NormalisedForm(),
    ProjectionForm(),
)
#: Functions that peft has as well, and why they are not written for it.
NOT_WRITTEN: dict[str, str] = {
    "subspace_rotation": "peft makes its frozen factors again when it loads, and their signs may differ",
}
