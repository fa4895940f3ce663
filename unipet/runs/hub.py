"""The hub: a few files up into a model repository, known files down from one, and its errors in one line each."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from unipet.errors import UnipetError
from unipet.output.files import write_folder_atomic
from unipet.runs.model_files import first_line

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
TIMEOUT = 30.0  # seconds for one answer of the hub


def check_name(name: str) -> None:
    """Raise `UnipetError` unless `name` is OWNER/NAME as the hub allows it."""
    if not NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith((".git", ".", "-")):
        raise UnipetError(
            f"{name[:80]!r} is no repository: OWNER/NAME needed, of letters, digits, '-', '_' and '.', for example me/my-adapter."
        )


def upload(name: str, files: Mapping[str, bytes], private: bool, message: str) -> str:
    """Write `files` into the model repository `name`, which is made if it is not there, in one commit. Returns its address.

    Raises `UnipetError` offline, without a login, without the right to write, and where a repository that should be private is
    public.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise UnipetError(
            "unipet push: you are not logged in to the hub. Run: hf auth login   (or set HF_TOKEN to a token that may write)."
        )
    api = HfApi(library_name="unipet")
    with _one_line_errors("push", name):
        address = str(api.create_repo(name, private=private or None, exist_ok=True))
        if private and not api.model_info(name, timeout=TIMEOUT).private:
            raise UnipetError(
                f"{name} is there and public, and --private was given. Choose another name, or leave it out."
            )
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        api.create_commit(name, operations, commit_message=message)
    return address


def download(
    name: str, revision: str | None, known: Mapping[str, int], needed: str, check: Callable[[Path], None], out: Path
) -> str:
    """Write those files of the repository `name` that are `known` (name -> most bytes) to the new directory `out`, all or none,
    after `check` has looked at the folder that holds them. Returns the commit. Nothing else of the repository is looked at.

    Raises `UnipetError` where the hub cannot be reached, there is no such repository or no file `needed` in it, a file is
    larger than it may be, `check` raises it, and where `out` cannot be written.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="unipet")
    with _one_line_errors("pull", name), TemporaryDirectory(prefix="unipet-pull-") as temporary:
        info: Any = api.model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT)
        sizes = {each.rfilename: each.size for each in info.siblings or () if each.rfilename in known}
        if needed not in sizes:
            raise UnipetError(f"{name} holds no unipet adapter: it has no {needed}.")
        for path, size in sizes.items():
            if not isinstance(size, int) or size > known[path]:
                raise UnipetError(
                    f"{name}: {path} has {size if isinstance(size, int) else 'an unknown number of'} bytes; at most "
                    f"{known[path]:,} are read. It is not what it should be."
                )
        if sum(sizes.values()) > shutil.disk_usage(temporary).free:
            raise UnipetError(f"{name} has {sum(sizes.values()):,} bytes, more than there is room for in {temporary}.")
        found: dict[str, bytes] = {}
        for path, size in sizes.items():
            place = Path(api.hf_hub_download(name, path, revision=info.sha, local_dir=temporary))
            if place.stat().st_size != size:
                raise UnipetError(f"{name}: {path} has another size than the hub says. Pull it again.")
            found[path] = place.read_bytes()
        check(Path(temporary))
        write_folder_atomic(out, found)
    return str(info.sha)


@contextmanager
def _one_line_errors(command: str, name: str) -> Iterator[None]:
    """The hub's errors as a `UnipetError` that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except UnipetError:
        raise
    except errors.OfflineModeIsEnabled:
        raise UnipetError(
            f"unipet {command}: the hub is switched off by HF_HUB_OFFLINE. Run: HF_HUB_OFFLINE=0 unipet {command} ..."
        ) from None
    except errors.RevisionNotFoundError:
        raise UnipetError(
            f"unipet {command}: {name} has no such revision. Leave out --revision for the newest."
        ) from None
    except errors.GatedRepoError:
        raise UnipetError(
            f"unipet {command}: {name} is gated. Ask for access on its page, and run: hf auth login"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UnipetError(
            f"unipet {command}: the hub has no model repository {name}, or it is private and you are not logged in as somebody "
            "who may see it. Look at the name, or run: hf auth login"
        ) from None
    except errors.HfHubHTTPError as error:
        raise UnipetError(f"unipet {command}: {_answer(error, name)}") from None
    except OSError as error:
        raise UnipetError(f"unipet {command}: {first_line(error)}. Try again, or choose another place.") from None
    except Exception as error:  # the client's own for no route, no name, a time limit, a broken answer
        raise UnipetError(
            f"unipet {command}: the hub did not answer ({type(error).__name__}: {first_line(error)}). Look at the network and "
            "HF_ENDPOINT, and run it again."
        ) from None


def _answer(error: Any, name: str) -> str:
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return "the hub does not know this token. Run: hf auth login"
    if status == 403:
        return f"you may not write to {name}. Choose an owner that you belong to, or a token that may write."
    return f"the hub refused ({status}): {first_line(error)}"
