"""Config files: read whatever editor wrote them, named if they have no effect; what Hydra says of them, in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import OverrideParseException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from neuralmech.checks import elsewhere
from neuralmech.errors import UserError
from neuralmech.words import hydra_value, override_word, short

REMEDY = "make `# @package _global_` the first line of its file"
PLUGINS = {  # what Hydra knows once something is installed
    "hydra/sweeper=optuna": "pip install hydra-optuna-sweeper",
    "hydra/launcher=joblib": "pip install hydra-joblib-launcher",
    "hydra/launcher=submitit_local": "pip install 'neuralmech[slurm]'",
    "hydra/launcher=submitit_slurm": "pip install 'neuralmech[slurm]'",
}
read: list[tuple[str, str, str]] = []  # config files: path without suffix, where their keys belong, text
strays: list[Path] = []  # files in experiment/ that were read and do not say where their options belong


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's own, for files that begin with a byte order mark or are no UTF-8, too; the name is how Hydra knows it."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises
        ------
        UserError
            If it is no UTF-8, or its header cannot be read.
        """
        path = Path(self.path, self._normalize_file_name(config_path)).resolve()
        if not path.exists():
            raise ConfigLoadError(f"Config not found : {path}")
        try:
            text = path.read_bytes().decode("utf-8-sig")
            header = ConfigSource._get_header_dict(text)
        except UnicodeDecodeError as error:
            what = f"{short(path)} is not UTF-8 ({error.reason} at byte {error.start})"
            raise UserError(f"{what}; save it as UTF-8") from None
        except ValueError as error:
            raise UserError(f"{short(path)} begins with a header that is none ({error}); {REMEDY}") from None
        if config_path.startswith("experiment/") and header["package"] in (None, "_group_"):
            strays.append(path)
        read.append((config_path.removesuffix(".yaml"), _package(config_path, header["package"]), text))
        file = StringIO(text)
        file.name = str(path)  # pyright: ignore[reportAttributeAccessIssue]  (what YAML's errors call it)
        config = OmegaConf.load(file)
        return ConfigResult(config=config, path=f"file://{self.path}", provider=self.provider, header=header)


def use_own_sources() -> None:
    """Let Hydra read files by `FileConfigSource`."""
    Plugins.instance()  # registers its own
    SourcesRegistry.instance().types["file"] = FileConfigSource
    strays.clear()
    read.clear()


def _package(config_path: str, said: str | None) -> str:
    """Where a file's keys belong, as what comes before them in dotted keys."""
    place = config_path.rpartition("/")[0].replace("/", ".") if said in (None, "_group_") else said
    return "" if place in ("", "_global_") else f"{place}."


def check_effect(config: Any) -> None:
    """Raise a `UserError` for a config file that was chosen and has no effect on a composed config."""
    if config.get("experiment"):
        file = short(strays[-1]) if strays else f"experiment={HydraConfig.get().runtime.choices['experiment']}"
        keys = ", ".join(str(key) for key in config.experiment)
        raise UserError(f"{file} sets experiment.{keys}, which has no effect; {REMEDY}")
    hydra = HydraConfig.get()
    folders = [Path(s.path) for s in hydra.runtime.config_sources if s.schema == "file"]
    chosen = {f"{group}/{option}": f"{group}={option}" for group, option in hydra.runtime.choices.items()}
    for name, said in {hydra.job.config_name: f"--config-name={hydra.job.config_name}", **chosen}.items():
        files = [p for p in (folder / f"{name}.yaml" for folder in folders) if p.is_file()]
        for file in files[1:]:
            if file.read_bytes() != files[0].read_bytes():
                raise UserError(
                    f"{short(file)} has no effect: {said} is {files[0]}, which comes first; give it another name"
                )


def check_strays() -> None:
    """Raise a `UserError` for a file that only showing a config has met."""
    if strays:
        raise UserError(f"{short(strays[-1])} sets options of experiment only, which have no effect; {REMEDY}")


def explain(error: Exception, program: str) -> str:
    r"""One line for a composition error.

    Examples
    --------
    >>> text = "In 'train': Could not find 'model/resnet'\nAvailable options in 'model':\n\tmlp"
    >>> explain(Exception(text), "neuralmech train")
    'model=resnet is unknown; choose one of mlp'
    >>> explain(Exception("In 'train': Could not find 'hydra/sweeper/optuna'"), "neuralmech train")
    'hydra/sweeper=optuna is of a plugin that is not installed; pip install hydra-optuna-sweeper'
    """
    text = str(error)
    missing = re.search(r"Could not find '(?:(.+)/)?([^/']+)'", text)
    if missing:
        return _unknown_option(missing[1] or "config", missing[2], text)
    override = re.search(r"Could not override '([^']+)'", text)
    if override:
        return f"{override[1]} is no option; {_hint(error, override[1])}see `{program} --cfg job` for all of them"
    quoted = ""
    if isinstance(error, OverrideParseException):
        key, equals, value = error.override.partition("=")
        if equals and re.fullmatch(r"[+~]{0,2}[\w./@:-]+", key) and not set("[]{}()'\"") & set(value):
            quoted = f"; for this text as it stands write {override_word(key, value)}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("full_key:", "object_type=", "See https://"))]
    return f"{'; '.join(kept)}{quoted}; see `{program} --help`"


def _unknown_option(group: str, name: str, text: str) -> str:
    listed = text.partition("Available options")[2].partition("Config search path")[0]
    options = [line.strip() for line in listed.splitlines()[1:] if line.strip()]
    near = difflib.get_close_matches(name, options, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    if remedy := PLUGINS.get(f"{group}={name}"):
        return f"{group}={name} is of a plugin that is not installed; {remedy}"
    return f"{group}={name} is unknown{hint}" + (f"; choose one of {', '.join(options)}" if options else "")


def _hint(error: Exception, key: str) -> str:
    """The key that was meant: one beside it that is spelt alike, or one of that name that is elsewhere."""
    parent = getattr(error.__cause__, "parent_node", None)
    names = [str(name) for name in parent] if parent is not None else []
    group, dot, name = key.rpartition(".")
    near = [f"{group}{dot}{one}" for one in difflib.get_close_matches(name, names, n=1)]
    known = _all_keys(parent)
    found = _same_words(key, known) or near or elsewhere(key, known)
    return f"did you mean {' or '.join(found)}? " if found else ""


def _same_words(key: str, known: list[str]) -> list[str]:
    """Known keys that end with all words of a key of several, however they are joined.

    Examples
    --------
    >>> _same_words("checkpoint.keep", ["train.checkpoint.keep"]), _same_words("train.eval.every", ["train.eval_every"])
    (['train.checkpoint.keep'], ['train.eval_every'])
    """
    words = re.split(r"[._]", key)
    return [name for name in known if len(words) > 1 and re.split(r"[._]", name)[-len(words) :] == words]


def _all_keys(node: Any) -> list[str]:
    """Every key of the config that a node is of."""
    root = node._get_root() if node is not None else None
    return list(_dotted(OmegaConf.to_container(root, resolve=False), "")) if root is not None else []


def _dotted(config: Any, above: str) -> Iterator[str]:
    for key, value in config.items() if isinstance(config, Mapping) else ():
        if f"{above}{key}" != "hydra":
            yield f"{above}{key}"
            yield from _dotted(value, f"{above}{key}.")


def as_value(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(as_value(one) for one in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{k}:{as_value(v)}' for k, v in value.items())}}}"
    return hydra_value(str(value)) if isinstance(value, (str, Path)) else str(value)
