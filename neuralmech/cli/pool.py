"""``hydra/launcher=pool``: the jobs of a sweep side by side on one machine."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from neuralmech.cli.application import Outcome, told
from neuralmech.cli.sweeping import jobs_of
from neuralmech.errors import NotFiniteError, RunError, UserError
from neuralmech.machine import cores
from neuralmech.record import FAILURE_FILE, RecordError
from neuralmech.record.files import write_whole
from neuralmech.sweeps.deaths import Death
from neuralmech.sweeps.manifest import Manifest
from neuralmech.sweeps.pool import Ended, Workers, kept_open
from neuralmech.sweeps.progress import progress
from neuralmech.sweeps.shares import gpus, shares
from neuralmech.sweeps.worker import Answer, Assignment
from neuralmech.training.ready import make_ready
from neuralmech.words import own_words, short, signal_name

TRACE_FILE = "traceback.txt"
NAME = "hydra_plugins.neuralmech.PoolLauncher"  # Hydra takes plugins from there alone
PORTABLE = (UserError, RecordError, RunError, NotFiniteError, MemoryError)  # of a job's errors; others come as text


def register() -> None:
    """Let Hydra know the launcher by its name."""
    Plugins.instance().class_name_to_class[NAME] = PoolLauncher


class Task:
    """Carries out a job in a worker, as Hydra's other launchers do."""

    def __init__(self, context: HydraContext, config: DictConfig, function: TaskFunction) -> None:
        self._context, self._config, self._function = context, config, function
        self._instances = Singleton.get_state()["instances"]  # resolvers are functions, which cannot be sent

    def make_ready(self) -> None:
        """Import what training needs, while the process that hands out jobs still composes all of them."""
        make_ready(str(self._config.get("device", "auto")))

    def __call__(self, job: Assignment) -> JobReturn:
        """Compose the job's config and do it."""
        resolvers = Singleton.get_state()["omegaconf_resolvers"]
        Singleton.set_state({"instances": self._instances, "omegaconf_resolvers": resolvers})
        setup_globals()
        config = self._context.config_loader.load_sweep_config(self._config, list(job.overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
        done = run_job(
            hydra_context=self._context,
            task_function=self._function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if done.status != JobStatus.COMPLETED:
            raise done._return_value  # what the task did not expect
        found = done.return_value
        if isinstance(found, Outcome) and found.error is not None and type(found.error) not in PORTABLE:
            text, code = told(found.error)
            found.error = (UserError if code == 2 else RunError)(text)
        done.cfg = done.hydra_cfg = None  # large, not wanted, and of classes that Hydra may have made twice here
        return done


class PoolLauncher(Launcher):
    """Hands jobs to workers, which stay for the next batch of a sweeper that has several."""

    def __init__(self, n_jobs: Any = None, threads: Any = None) -> None:
        self._n_jobs, self._threads = n_jobs, threads
        self._pool: Workers | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what Hydra will want to be carried out, and begin workers where something is to be done.

        Hydra composes all jobs first, so that one that is wrong refuses the sweep: that takes 50 ms for each.
        """
        self._context, self._function, self._config = hydra_context, task_function, config
        jobs, _ = jobs_of(config)
        if jobs and any(entry.state not in ("done", "failed") for entry in self._manifest.read().values()):
            self._pool = self._opened(len(jobs))
            self._pool.begin()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Carry out jobs; what became of each, in their order."""
        setup_globals()
        jobs = [Assignment(initial_job_idx + i, tuple(words)) for i, words in enumerate(job_overrides)]
        manifest = self._manifest
        manifest.plan({job.number: job.overrides for job in jobs})
        own = own_words([job.overrides for job in jobs])
        words = {job.number: text for job, text in zip(jobs, own, strict=True)}
        pool = self._pool = self._pool or self._opened(len(jobs))
        returned: dict[int, JobReturn] = {}
        with progress(len(jobs), words) as shown:
            for ended in pool.carry_out(jobs):
                if ended is None:
                    shown.show(pool.running)
                    continue
                shown.pass_on(ended)
                returned[ended.job.number] = _returned(ended, manifest)
        return [returned[job.number] for job in jobs]

    @property
    def _manifest(self) -> Manifest:
        return Manifest(Path(self._config.hydra.sweep.dir).absolute())

    def _opened(self, jobs: int) -> Workers:
        device = str(self._config.get("device", "auto"))
        parts = shares(self._n_jobs, self._threads, jobs, gpus(device, os.environ), cores(), os.environ)
        task = pickle.dumps(Task(self._context, self._config, self._function))
        return kept_open(Workers(task, parts.count, parts.environment))


def _returned(ended: Ended, manifest: Manifest) -> JobReturn:
    """What Hydra expects of a job; one that could not say so itself has failed, and the manifest says why."""
    answer = ended.answer
    if isinstance(answer, Answer) and answer.value is not None:
        if getattr(answer.value.return_value, "error", None) is None:
            _trace_file(ended, manifest).unlink(missing_ok=True)  # of the job as it failed before
        return answer.value
    if isinstance(answer, Death):
        _note(ended, answer, manifest)
        error = answer.cause
    elif answer.stopped is not None:
        error = f"stopped by {signal_name(answer.stopped)}; the same command goes on with it"
    else:
        file = _trace_file(ended, manifest)
        write_whole(file, answer.trace.encode("utf-8", "replace"))
        error = f"{answer.error}; its traceback is in {short(file)}"
    outcome = Outcome.arrived[ended.job.number] = Outcome(ended.job.number, RunError(error), words=ended.job.overrides)
    returned = JobReturn(overrides=ended.job.overrides, status=JobStatus.COMPLETED)
    returned.return_value = outcome
    return returned


def _trace_file(ended: Ended, manifest: Manifest) -> Path:
    """Where the traceback of an error goes that nobody foresaw: the job's folder, or the sweep's if it has none."""
    entry = manifest.read().get(ended.job.number)
    folder = manifest.folder / entry.folder if entry and entry.folder else None
    if folder and folder.is_dir() and not folder.is_symlink():
        return folder / TRACE_FILE
    return manifest.folder / f"job-{ended.job.number}-{TRACE_FILE}"


def _note(ended: Ended, death: Death, manifest: Manifest) -> None:
    """Note in the manifest what ended a job, and in its folder for `analyze`."""
    number = ended.job.number
    before = manifest.read().get(number)
    seconds = round((before.seconds or 0.0 if before else 0.0) + ended.seconds, 3)
    manifest.update(number, state=death.state, error=death.cause, seconds=seconds, process=None)
    folder = manifest.folder / before.folder if before and before.folder else None
    if folder and folder.is_dir() and not folder.is_symlink():
        write_whole(folder / FAILURE_FILE, f"{death.cause}\n".encode())
