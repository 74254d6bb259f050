"""The processes of a run: one alone, or several that share each batch and take the same steps."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Float64
from torch import Tensor

from neuralmech.data.draws import seed_step
from neuralmech.errors import RunError, UserError
from neuralmech.training.place import Rank
from neuralmech.training.process import Stop, ended_at_once

PATIENCE = timedelta(days=1)  # others may wait while the first one evaluates; torchrun ends them if it is gone
LAG = 2  # steps by which a GPU may be behind what is read of it
_T = TypeVar("_T")


class LostError(RunError):
    """Another process of the run has ended, and says why."""


class Alone:
    """One process, which does nothing of all that.

    Attributes
    ----------
    rank, count
        Number of this process, and how many there are.
    share
        Its samples of each batch: every so many-th, so that the halves of its share are its share of the halves.
    """

    rank, count = 0, 1
    share = slice(None)

    @property
    def is_first(self) -> bool:
        """Whether this process looks after the run's folder, and speaks."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """Which device it takes where the user asks for `name`."""
        return name

    def tell(self, what: _T) -> _T:
        """What the first process has, for all."""
        return what

    def seed(self, seed: int, step: int) -> None:
        """Let the generators that a model draws from give this process its own numbers in a step."""

    def mean(
        self, gradient: Float[Tensor, " parameters"], loss: Float[Tensor, ""], weight: Float[Tensor, ""]
    ) -> Float[Tensor, ""]:
        """Make of each process's gradient, in its place, and of its loss those of the whole batch.

        Both are means over targets, `weight` is what those of this process weigh.
        """
        return loss

    def total(self, weight: Float[Tensor, ""]) -> Float64[Tensor, ""]:
        """Sum over the processes."""
        return weight

    def stops(self, stop: Stop) -> bool:
        """Whether a signal has asked to stop before the step to come."""
        return stop.signal is not None


ALONE = Alone()


class Together(Alone):
    """Several processes with the same parameters, each with a part of every batch.

    All that they need to know of one another in a step is one sum over the processes: of the gradients times the
    weights of their targets, and behind it a row for each process of its loss, weight and wish to stop. Rows of others
    are zeros there, and a sum with zeros rounds nothing, so that all read the same numbers to the last bit; those in
    double precision are two in single precision.
    """

    def __init__(self, place: Rank) -> None:
        self.rank, self.count, self._local = place.rank, place.count, place.local
        self.share = slice(place.rank, None, place.count)
        self._room = torch.empty(0)
        self._wish, self._agreed = 0, 0
        self._waiting: deque[tuple[Tensor, Any]] = deque()

    def device(self, name: str) -> str:
        """The GPU of this process's number on its computer, or the CPU."""
        if name.startswith("cuda:"):
            raise UserError(
                f"device={name} is one GPU for {self.count} processes; use device=cuda, which gives each one"
            )
        if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return "cpu"
        return f"cuda:{self._local}"

    def tell(self, what: _T) -> _T:
        """What the first process has, for all."""
        box = [what]
        _reached(lambda: dist.broadcast_object_list(box, src=0, device=torch.device("cpu")))
        return box[0]

    def seed(self, seed: int, step: int) -> None:
        """A function of these numbers and the process's own; the first draws what it would draw alone.

        So a checkpoint of the first one is enough, whatever the number of processes that go on from it.
        """
        if self.rank:
            seed_step(seed, step, self.rank)

    @torch.no_grad()
    def mean(
        self, gradient: Float[Tensor, " parameters"], loss: Float[Tensor, ""], weight: Float[Tensor, ""]
    ) -> Float[Tensor, ""]:
        """Gradient (in place) and loss of the whole batch; a share of which no target counts adds nothing."""
        size, device = gradient.numel(), gradient.device
        if self._room.numel() != size + 5 * self.count or self._room.dtype != gradient.dtype:
            self._room = gradient.new_empty(size + 5 * self.count)
        weight, loss = weight.to(device, torch.float64), loss.to(device, torch.float64)
        counts = weight > 0
        part, rows = self._room[:size], self._room[size:].view(self.count, 5)
        torch.where(
            counts, gradient * weight.to(gradient.dtype), torch.zeros_like(weight, dtype=gradient.dtype), out=part
        )
        values = torch.stack([torch.where(counts, loss * weight, torch.zeros_like(loss)), weight])
        high = values.to(gradient.dtype)
        rest = torch.where(high.isfinite(), values - high.double(), torch.zeros_like(values))
        rows.zero_()
        rows[self.rank, :2], rows[self.rank, 2:4], rows[self.rank, 4] = high, rest, self._wish
        _reached(lambda: dist.all_reduce(self._room))
        losses, weights = (rows[:, :2].double() + rows[:, 2:4].double()).sum(dim=0)
        torch.div(part, weights.to(part.dtype), out=gradient)
        self._note(rows[:, 4].max())
        return losses / weights

    def total(self, weight: Float[Tensor, ""]) -> Float64[Tensor, ""]:
        """Sum over the processes."""
        summed = weight.to(torch.float64, copy=True)
        _reached(lambda: dist.all_reduce(summed))
        return summed

    def stops(self, stop: Stop) -> bool:
        """Whether a signal has asked any of them: all stop before the same step, the first after they know of it."""
        self._wish = stop.signal or 0
        if self._agreed:
            stop.signal = self._agreed
        return bool(self._agreed)

    def _note(self, wish: Tensor) -> None:
        """Remember who wants to stop; of a GPU, what it has said some steps ago, so that nobody waits for it."""
        if not wish.is_cuda:
            self._agreed = int(wish)
            return
        event = torch.cuda.Event()
        there = wish.to("cpu", non_blocking=True)
        event.record()
        self._waiting.append((there, event))
        if len(self._waiting) > LAG:
            there, event = self._waiting.popleft()
            event.synchronize()
            self._agreed = int(there)


@contextmanager
def joined(place: Rank) -> Iterator[tuple[Together, dist.Store]]:
    """Be one of several processes, and have the store in which they leave word; gloo adds for CPUs, NCCL for GPUs.

    After an error the group is left as it is: ending it may take as long as others are not there, and the others learn
    of it by this process's end, when it has said why.
    """
    has_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    if has_gpus and place.local < torch.cuda.device_count():
        torch.cuda.set_device(place.local)
    backend = "cpu:gloo,cuda:nccl" if has_gpus else "gloo"
    group = {"timeout": PATIENCE, "world_size": place.count, "rank": place.rank}
    with ended_at_once():
        store = _store(place)
        _reached(lambda: dist.init_process_group(backend, store=dist.PrefixStore("group", store), **group))
    yield Together(place), store
    dist.destroy_process_group()


def _store(place: Rank) -> dist.Store:
    """That of torchrun, which outlives each process; otherwise the first process keeps one."""
    is_ours = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and place.rank == 0
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, place.count, is_ours, timedelta(minutes=5), wait_for_workers=False)
    return dist.PrefixStore(f"neuralmech/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _reached(call: Callable[[], object]) -> None:
    """Do what all processes do together.

    Raises
    ------
    LostError
        If one of them is not there any more.
    """
    try:
        call()
    except RuntimeError as error:  # gloo and NCCL have no kind of their own for it
        raise LostError(f"another process of the run has ended ({str(error).strip().splitlines()[0]})") from error
