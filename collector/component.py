"""THE contract: what a receiver, processor, exporter or extension is. One component = one file; type id = file name.

Lifecycle of a component:
1. its `Config` is validated (fields with defaults, limits and descriptions: the same lines are schema, docs and errors);
2. it is built: `Type(config, settings)`; this must not open sockets, start tasks or import client libraries;
3. receivers, exporters and extensions get `start()`, exporters first, receivers last; processors have none;
4. it works; 5. `stop()`, receivers first; `drain()` empties processors in between. `stop` may be called twice.
The module's docstring: first line = summary, an `Example:` block of YAML = the least useful configuration (run by tests).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from collector.fields import Config
from collector.meters import Meters
from collector.model import Batch, Payload, Signal

ALL_SIGNALS = frozenset(Signal)


class Accept(Protocol):
    """Where a receiver hands in the batches of one signal: `await accept(batch)`, or at once where nobody would wait."""

    async def __call__(self, batch: Batch) -> None:
        """Take it; returns when the ack point is reached. Raises errors.Refused or errors.Rejected when nothing was taken."""

    def ready(self, size: int, count: int) -> bool:
        """True when `at_once` takes `count` items of `size` bytes: nobody has to be waited for, now or later."""
        return False

    def at_once(self, batch: Batch, count: int) -> None:
        """Take a batch of `count` items that it is `ready` for. Raises like a call."""


class Hold(Protocol):
    """Bytes reserved from the process-wide budget by one request; a context manager that gives them back."""

    def grow(self, size: int) -> None:
        """Reserve `size` more bytes before they are allocated. Raises errors.Refused when there is no room."""

    def __enter__(self) -> Hold: ...
    def __exit__(self, *exc: object) -> None: ...


class Budget(Protocol):
    """The process-wide byte budget (memory_limiter)."""

    def hold(self, size: int = 0) -> Hold:
        """Start a reservation. Raises errors.Refused when there is no room for `size`."""

    def check(self) -> None:
        """Raises errors.Refused while the process is above its soft memory limit."""

    def message_limit(self) -> int:
        """The largest message, in bytes after decompression, that memory allows when the user named no limit."""


class Host(Protocol):
    """What the running service shows to its components."""

    @property
    def budget(self) -> Budget: ...
    @property
    def exporters(self) -> Mapping[str, Exporter]: ...

    def state(self) -> str:
        """`starting`, `running`, `draining` or `failed`."""

    def status(self) -> dict[str, Any]:
        """Components, queues, accounting and configuration hash, ready for JSON; never payload or secrets."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service hands to a component. `id` is spelled as the user wrote it, `type[/name]`."""

    id: str
    meters: Meters
    log: logging.Logger
    host: Host
    drop: Callable[[Signal, int, str], None]
    """Books `n` items as dropped for `reason` (sampled, filtered, processor_error, ...): nothing is dropped uncounted."""


class Component:
    """What all kinds share."""

    Config: ClassVar[type[Config]] = Config
    signals: ClassVar[frozenset[Signal]] = ALL_SIGNALS

    def __init__(self, config: Any, settings: Settings) -> None:
        self.config, self.settings = config, settings


class Processor(Component):
    """Changes, drops or holds items. Synchronous and pure: no clock, no loop, no I/O; `now` is wall time in seconds.

    It owns the batch it is given and may return the same object. An exception drops the batch, counted: nothing
    unprocessed goes on. Everything it drops on purpose it books with `settings.drop`.
    """

    shared: ClassVar[bool] = False  # one instance for all pipelines that name the id, else one for each pipeline
    counts: ClassVar[bool] = False  # must see everything: runs before the first that samples, whatever the YAML's order
    samples: ClassVar[bool] = False  # drops on purpose by a sampling decision

    def warm(self) -> None:
        """Load and compile what the first batch would wait for; called once on a thread, while batches may already come."""

    def process(self, batch: Batch, now: float) -> Batch | None:
        """What goes on, None for nothing."""
        raise NotImplementedError

    def tick(self, now: float) -> Batch | None:
        """Called every 100 to 500 ms; releases what has waited long enough."""
        return None

    def drain(self) -> Batch | None:
        """Decide everything still held, because the service stops or the component is replaced."""
        return None

    def kept(self, batch: Batch) -> None:
        """Look, without changing it, at what leaves the whole chain; only processors that define it are called."""

    def held(self) -> int:
        """Items inside at the moment."""
        return 0


class Exporter(Component):
    """Sends payloads. Queue, batching, retry, timeout and counters belong to the pipeline, never to an exporter."""

    largest: int = 4 << 20
    """Bytes of one payload: what is larger is cut at item borders before it is queued; a single item may be larger."""

    async def start(self) -> None: ...  # open clients; a backend that does not answer is no reason to fail
    async def stop(self) -> None: ...  # close clients

    async def send(self, payload: Payload) -> int | tuple[int, int]:
        """Deliver it once; returns how many items the backend rejected (never retried), or that and how many were filtered out.

        Raises errors.Retryable, errors.Permanent or errors.Oversized; anything else counts as Permanent.
        """
        raise NotImplementedError


class Receiver(Component):
    """Takes requests and hands them to `accept`."""

    async def start(self, accept: Mapping[Signal, Accept]) -> None:
        """Listen; returns when the port is open. Signals that no pipeline takes are absent from `accept`."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Answer what is in flight, then close the port."""


class Extension(Component):
    """Something beside the pipelines: a health endpoint, a console."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
