"""Translating errors of Hydra and OmegaConf into one `UnipetError`: full key, given value, allowed values, nearest name."""

from __future__ import annotations

import errno
import re
import shlex
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from unipet.compose import parse_run_config
from unipet.compose.override_text import quoted
from unipet.errors import LONGEST, UnipetError, not_allowed, unknown

#: What plugins of Hydra's bring -> the package to install.
PLUGINS = {
    "hydra/launcher=joblib": "hydra-joblib-launcher",
    "hydra/launcher=ray": "hydra-ray-launcher",
    "hydra/launcher=submitit_local": "hydra-submitit-launcher",
    "hydra/launcher=submitit_slurm": "hydra-submitit-launcher",
    "hydra/sweeper=ax": "hydra-ax-sweeper",
    "hydra/sweeper=nevergrad": "hydra-nevergrad-sweeper",
    "hydra/sweeper=optuna": "hydra-optuna-sweeper",
}
MOST = 1000  # characters of what a message of Hydra's, or an override, is shown with


@contextmanager
def translate(overrides: Sequence[str]) -> Iterator[None]:
    """Turn an exception of Hydra, OmegaConf or the YAML reader into a `UnipetError`. `overrides` are the overrides that
    are composed inside."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except YAMLError as error:  # it names the file, the line and the column
        raise UnipetError(f"not valid YAML: {' '.join(str(error).split())}. Correct the file.") from None
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides) from error
    except RecursionError:
        raise UnipetError(f"cannot compose {_asked(overrides)}: a defaults list leads back to its own file.") from None
    except UnipetError:
        raise
    except OSError as error:  # Hydra looks for files that are called as a key is
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise UnipetError(f"cannot compose {_asked(overrides)}: too long for the name of a file or a key.") from None
    except (
        AssertionError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # Hydra has no errors for some mistakes
        if not _of_hydra(error):
            raise  # a mistake of ours, not of the user's
        raise UnipetError(f"cannot compose {_asked(overrides)}: {type(error).__name__}: {str(error)[:300]}") from error


def _of_hydra(error: Exception) -> bool:
    """Whether Hydra or OmegaConf raised it, or what they called, and not a function of this package that was called last."""
    packages = [
        str(frame.f_globals.get("__name__", "")).partition(".")[0]
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    known = [package for package in packages if package in ("unipet", "hydra", "omegaconf")]
    return bool(known) and known[-1] != "unipet"


def _asked(overrides: Sequence[str]) -> str:
    return " ".join(overrides)[:300] or "the configuration"


def explain(error: Exception, overrides: Sequence[str]) -> UnipetError:
    """One `UnipetError` for an exception of Hydra or OmegaConf."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

    if isinstance(error, OverrideParseException):
        return unreadable(error.override)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, option = error.missing_cfg_file.rpartition("/")
        if (package := PLUGINS.get(f"{group}={option}")) is not None:
            return UnipetError(f"{group}={option}: this plugin of Hydra is not installed. Run: pip install {package}")
        return unknown(f"{group}={option[:LONGEST]}", option, error.options)
    # for a mistake in a file, Hydra raises its error while handling OmegaConf's, without giving it as the cause
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__ or error.__context__
    if isinstance(cause, OmegaConfBaseException):
        key = str(cause.full_key or cause.key or "")
        if (ours := _ours(cause)) is not None:  # a resolver of this package refused its arguments
            return UnipetError(f"{key + ': ' if key else ''}{ours}{origin(error)}")
        if isinstance(cause, MissingMandatoryValue):
            return UnipetError(f"{key}: not given. Set it, for example {key}=VALUE.")
        if isinstance(cause, ConfigKeyError) and not key.startswith("hydra"):
            try:
                parse_run_config.check_key(key)
            except UnipetError as known:
                return UnipetError(f"{known}{origin(error)}")
        allowed = parse_run_config.allowed_at(key)
        if allowed is not None and cause.value is not None:
            return UnipetError(f"{not_allowed(key, cause.value, allowed)}{origin(error)}")
        if allowed is not None:  # Hydra does not report the value: null, or a list or mapping of the wrong shape
            return UnipetError(f"{key}: null or a value of another shape given; allowed: {allowed}.{origin(error)}")
        return UnipetError(f"{key + ': ' if key else ''}{first_line(cause)}{origin(error)}")
    return UnipetError(f"cannot compose {_asked(overrides)}: {' '.join(str(error).split())[:MOST]}")


def _ours(error: BaseException | None) -> UnipetError | None:
    """The error of this package that led to this one."""
    while error is not None and not isinstance(error, UnipetError):
        error = error.__cause__ or error.__context__
    return error


def unreadable(override: str) -> UnipetError:
    """The error for an override that Hydra's grammar does not accept."""
    text = override.lstrip("+")
    text = text if len(text) <= MOST else f"{text[:LONGEST]}..."
    if "=" not in text:
        return UnipetError(f"{text!r} is not an override: write key=value, for example method={text or 'NAME'}.")
    key, value = text.split("=", 1)
    filled = [part for part in value.split(",") if part.strip()]
    if filled and len(filled) <= value.count(",") and not set(value) & set("'\"[]{}()"):
        return UnipetError(
            f"{text}: one of the values between the commas is empty. Remove the extra comma: {key}={','.join(filled)}"
        )
    return UnipetError(
        f"cannot read the override {text!r}. Quote a value with spaces or special characters twice, once for the shell: "
        f"{shlex.quote(f'{key}={quoted(value)}')}"
    )


def origin(error: Exception) -> str:
    """` (in task/mine.yaml)` if the mistake is in a file, else ""."""
    found = re.match(r"In '([^']+)'", str(error))
    return f" (in {found.group(1)}.yaml)" if found and found.group(1) != "config" else ""


def first_line(error: Exception) -> str:
    """The first line of an error message; the other lines of OmegaConf's messages are internals."""
    lines = str(error).strip().splitlines()
    return lines[0][:MOST] if lines else type(error).__name__
