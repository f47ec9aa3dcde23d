"""A trained network by what a person calls it: a run, a file, or a function of their own."""

from pathlib import Path
from typing import TYPE_CHECKING

from tombola.errors import InvalidValue, TicketError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tombola.data import Dataset
    from tombola.strong.target import Target

_TICKET, _TRAINED = "ticket.safetensors", "trained.safetensors"


def open_trained(
    name: str, *, dense: bool = False, search: str | None = None, model: str | None = None, data: str | None = None
) -> tuple["Target", "Dataset | None", str]:
    """Read a trained network, and the data it was trained on where they are known.

    Args:
        name: a run's folder, a file of trained weights, or ``pkg.module:function``.
        dense: the run's dense network, not its ticket.
        search: of a study.
        model: the network of a file whose ticket does not lie beside it.
        data: in place of the run's.

    Raises:
        TombolaError: there is no such thing, or it is no network that a strong ticket can stand for.
    """
    from tombola import models
    from tombola.data import load
    from tombola.strong.target import read

    path = Path(name)
    dataset = None if data is None else load(data)
    if not path.exists() and ":" in name:
        found = models.importable(name, "the trained network")()
        return read(_module(found, name)), dataset, name
    if dense:
        return _dense(path, search, dataset)
    folder = path if path.is_dir() else path.parent
    if search is not None:
        folder = folder / search
    file = folder / _TRAINED if path.is_dir() else path
    if not file.is_file():
        searches = sorted(one.parent.name for one in folder.glob(f"*/{_TRAINED}"))
        hint = f" It is a study; name a search: --search {searches[0]}." if searches else ""
        raise TicketError(f"{file} is not here; expected a trained network that `tombola find` saved.{hint}")
    about = _about(folder / _TICKET)
    model = model or _own_model(about, file)
    if dataset is None:
        if "data" not in about:
            raise InvalidValue(f"{file} does not say what data it takes. Add --data.")
        dataset = load(str(about["data"]))
    return read(_filled(model, dataset, file)), dataset, f"the trained network in {file}"


def _module(found: object, name: str) -> "nn.Module":
    from torch import nn

    if not isinstance(found, nn.Module):
        raise InvalidValue(f"{name} gave a {type(found).__name__}; expected a trained nn.Module.")
    return found


def _about(ticket: Path) -> dict[str, object]:
    from tombola import ticket as tickets

    return dict(tickets.load(ticket).provenance) if ticket.is_file() else {}


def _own_model(about: dict[str, object], file: Path) -> str:
    model = about.get("model")
    if model is None:
        raise InvalidValue(f"{file} does not say what network it is of. Add --model, and --data.")
    if ":" in str(model):
        raise TicketError(
            f"the network {model!s:.80} is code of your own, and a file is not trusted to name code. If that is what "
            f"you want to run, say so: --model {model!s:.80}."
        )
    return str(model)


def _filled(model: str, dataset: "Dataset", file: Path) -> "nn.Module":
    from tombola.search.named import builder

    module = builder(model, dataset)()
    values = _values(file)
    own = module.state_dict()
    odd = sorted(own.keys() ^ values.keys()) or sorted(n for n in own if own[n].shape != values[n].shape)
    if odd:
        raise TicketError(f"{file} holds another network than {model} on {dataset.name}: {', '.join(odd[:3])} differ.")
    module.load_state_dict(values)
    return module


def _values(file: Path) -> dict[str, "Tensor"]:
    import safetensors.torch

    try:
        return safetensors.torch.load_file(str(file))
    except Exception as error:
        raise TicketError(
            f"{file} holds no trained network: {error}. Expected the trained.safetensors of a run."
        ) from error


def _dense(path: Path, search: str | None, dataset: "Dataset | None") -> tuple["Target", "Dataset | None", str]:
    from tombola.data import load
    from tombola.explain.material import read as read_run
    from tombola.strong.target import read

    material = read_run(path, search)
    one = material.families[0]
    module = material.module()
    buffers = material.buffers.get(one.replicate, {})
    module.load_state_dict({**module.state_dict(), **buffers, **one.ends[0]})
    if dataset is None and material.setup is not None:
        dataset = load(str(material.setup.about["data"]))
    return read(module), dataset, f"the dense network of family {one.replicate} in {path}"
