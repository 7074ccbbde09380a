"""All that lives in an inference worker process, from the worker's boot to its end."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence

import structlog

from tether.broker.keys import Keys
from tether.broker.pools.consumer import PoolConsumer
from tether.broker.pools.redis_port import RedisWorkerPort
from tether.broker.pools.slots import Slots
from tether.broker.pools.worker_rank import WorkerRank
from tether.broker.redis.clock import RedisClockFollower
from tether.broker.redis.connections import connect
from tether.clocks import SharedClock, wall_clock_ms
from tether.config.settings import ModelSettings, Settings
from tether.discovery.adapters import Announcers
from tether.discovery.announcements.presence import (
    MAX_TOKENS_PER_SECOND,
    ModelState,
    Supported,
    WorkerState,
    announced_seconds,
    latency_hops,
)
from tether.discovery.commands.command import Action
from tether.discovery.commands.inbox import CommandFollower
from tether.discovery.commands.operator_key import OperatorKeys
from tether.discovery.over_redis.load_failures import write_load_failures
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.port import Announcer
from tether.discovery.process_ends import ProcessEnds
from tether.discovery.swarm.options import SwarmOptions
from tether.discovery.swarm.transport import SwarmTransport
from tether.discovery.topics import control_topic, network_id
from tether.discovery.trust.enrolment import RedisEnrolment
from tether.discovery.trust.identity import Identity
from tether.discovery.trust.process_life import ProcessLife, life_file, read_life, this_machine, write_life
from tether.discovery.trust.trusted_keys import TrustedKeys
from tether.ids import BootId
from tether.processes.child import LoadState
from tether.processes.stopping import CLOSING_SECONDS, WIND_UP_SECONDS, StopDeadline, worker_stop_seconds
from tether_workers.attempts.attempt import AttemptPhase
from tether_workers.attempts.hand_over import HandOver
from tether_workers.attempts.lease_renewal import LeaseRenewal
from tether_workers.attempts.running import Attempts
from tether_workers.attempts.token_writer import TokenWriter
from tether_workers.base import BaseWorker
from tether_workers.control.availability import Availability, AvailabilityState
from tether_workers.control.boot_counter import RaisedBootCounter
from tether_workers.control.commands import CommandHandler
from tether_workers.inference import Inference, inference_stages
from tether_workers.loading import EngineFactory, EngineLoader
from tether_workers.model_demand import ModelDemand
from tether_workers.presence.cache_report import CacheReport
from tether_workers.presence.health import HealthReporter, WorkerStatus
from tether_workers.presence.load_report import LoadReport
from tether_workers.presence.manifest import ManifestWriter
from tether_workers.presence.prefill import PrefillThroughput
from tether_workers.presence.video_memory import driver_memory, video_memory
from tether_workers.served_models import ServedModel
from tether_workers.tenant_shares import TenantShare, TenantShares


class WorkerRuntime:
    """Owns the identity, the connections, the threads and the engines of a worker process.

    Threads: ``tether-flush``, ``tether-beat``, ``tether-health``, ``tether-commands``, ``tether-manifest``,
    ``tether-clock``, ``tether-process-ends`` and ``tether-demand`` from :meth:`start` to :meth:`stop`, where
    the swarm is used ``tether-swarm`` and ``tether-trust`` as well, ``tether-load`` while a model is loaded,
    and ``tether-drain`` while the attempts of a worker that takes no more jobs end.

    Attributes:
      drain_seconds: For how long jobs that run may go on when the worker stops.
    """

    def __init__(
        self,
        settings: Settings,
        served: Sequence[ServedModel],
        factories: Mapping[str, EngineFactory],
        base: BaseWorker,
        *,
        slots: int,
        deadline: StopDeadline,
    ) -> None:
        """
        Args:
          settings: Where Redis is, and how patient everybody is.
          served: What the worker serves.
          factories: Engines by name.
          base: The hooks.
          slots: Jobs that can run at once.
          deadline: That of the stop; begun by :meth:`drain` where nobody has begun it before.

        Raises:
          ConfigError: No identity can be claimed.
        """
        self._settings = settings
        self._driver_memory = driver_memory(os.environ)
        self._served = tuple(served)
        self._base = base
        self._log = structlog.stdlib.get_logger("tether.worker")
        self._logged_health: Mapping[str, object] = {}
        self.identity = Identity.claim(settings.presence.identity_dir)
        keys = Keys(settings.redis.namespace, settings.redis.hash_tag)
        self._client = connect(settings.redis.url)
        # For deadlines; and for what it logs, as others do not accept announcements whose times are far off.
        shared_clock = SharedClock()
        self._clock = RedisClockFollower(self._client, shared_clock, self._log)
        raised = RaisedBootCounter(self.identity, self._use_boot_id, self._log)
        rank = WorkerRank(raised.above)
        self.port = RedisWorkerPort(self._client, keys, self.identity.boot_id, settings.jobs.lease, rank=rank)
        self._ends = ProcessEnds(settings)
        self._former_life = read_life(life_file(self.identity))
        self._presence = RedisPresence(self._client, keys, expiry_ms=settings.presence.expiry)
        self._trusted = TrustedKeys.from_settings(settings, RedisEnrolment(self._client, keys))
        self._network = network_id(bytes.fromhex(settings.network.secret))
        self._operators = OperatorKeys.from_settings(settings)
        self._swarm = self._swarm_of(settings)
        self.slots = Slots(slots)
        self._shares = TenantShares(TenantShare.of(settings.worker, slots), time.monotonic)
        self._flush = TokenWriter(self.port)
        self.attempts = Attempts(
            clock=time.monotonic,
            on_unwritten=self._flush.note,
            on_began=lambda attempt: self._beat.note_begun(attempt),
            on_generated=self._shares.note if self._shares.share.tokens_per_second is not None else None,
        )
        self._beat = LeaseRenewal(
            self.port,
            self.attempts,
            lease=settings.jobs.lease / 1000,
            loading_limit=settings.jobs.loading_limit / 1000,
            shared_clock=shared_clock,
        )
        self._health = HealthReporter(
            self.identity,
            self._announcer(),
            self._status,
            interval=settings.presence.interval / 1000,
            network=self._network,
            may_announce=lambda: not rank.is_outranked,
        )
        self.port.contact.on_change(self._health.announce_now)
        rank.on_change(self._health.announce_now)
        self._loader = EngineLoader(
            [one.settings for one in served],
            factories,
            before_load=self._before_load,
            on_change=self._models_changed,
            told_per_try=slots,
        )
        self._demand = ModelDemand(
            self.port,
            self._loader,
            served,
            slots=self.slots,
            may_draw=lambda: not rank.is_outranked,
            report=LoadReport(
                served,
                self._loader.failure_of,
                functools.partial(write_load_failures, self._client, keys, self.identity.worker_id),
            ).tell,
        )
        self._prefill = PrefillThroughput()
        stages = inference_stages(self._loader, base, self._shares, self.slots, self._prefill)
        self.inference = Inference(
            self.port, self.attempts, stages, base, {one.pool: one.version for one in served}
        )
        self._cache = CacheReport(served, self._loader.use_of)
        self._deadline = deadline
        self.drain_seconds = min(settings.worker.drain_timeout, settings.worker.shutdown_timeout) / 1000
        self._hand_over = HandOver(self.port, self.attempts, drain_time=self.drain_seconds, deadline=deadline)
        self._availability = Availability(self.slots, self._hand_over, self._health.announce_now)
        self._manifest = ManifestWriter(
            self._client, keys, self.identity, self._network, self._cache.artifacts, wall_clock_ms
        )
        self._commands = self._command_handler(settings)
        self._inbox = CommandFollower(
            self._client,
            keys,
            self._commands.receive,
            worker=self.identity.worker_id,
            hints={keys.asked_ends(self.identity.worker_id): self._beat.beat_now},
            interval=settings.presence.interval / 1000,
        )

    def _command_handler(self, settings: Settings) -> CommandHandler:
        return CommandHandler(
            worker_id=self.identity.worker_id,
            boot_id=self.identity.boot_id,
            operators=self._operators,
            network=self._network,
            topic=control_topic(settings.worker.region),
            actions={
                Action.DRAIN: self._availability.drain,
                Action.CORDON: self._availability.cordon,
                Action.UNCORDON: self._availability.uncordon,
                Action.MANIFEST: self._manifest.ask,
            },
            clock=wall_clock_ms,
        )

    def _swarm_of(self, settings: Settings) -> SwarmTransport | None:
        options = SwarmOptions.from_settings(settings, "worker")
        if options is None:
            return None
        swarm = SwarmTransport(
            options,
            self.identity.key,
            self._trusted,
            operators=self._operators.snapshot,
            on_command=self._on_command,
        )
        swarm.join((control_topic(settings.worker.region),))
        return swarm

    def _on_command(self, envelope: bytes) -> None:
        self._commands.receive(envelope)

    def _announcer(self) -> Announcer:
        announcers: list[Announcer] = []
        if self._swarm is not None:
            announcers.append(self._swarm)
        if "redis" in self._settings.presence.adapters or self._swarm is None:
            announcers.append(self._presence)
        return Announcers(announcers)

    def consumer(self, timeout: int) -> PoolConsumer:
        """A consumer of the worker's pools, whose calls block for at most ``timeout`` milliseconds."""
        return PoolConsumer(
            self.port,
            self.slots,
            self._demand.pools,
            timeout=timeout,
            listener=self.attempts,
            limiter=self._shares if self._shares.share.is_limited else None,
        )

    def start(self) -> None:
        """Start the threads: from now on the worker announces itself."""
        self._write_life((self.identity.boot_id,))
        self._ends.start()
        if self._former_life is not None and self._former_life.place == self.identity.place:
            self._ends.tell(self._former_life, self._former_life.end_seen_from(this_machine()))
        self._flush.start()
        self._beat.start()
        if self._swarm is not None:
            self._trusted.start()
            self._swarm.start()
        self._health.start()
        self._manifest.start()
        self._inbox.start()
        self._clock.start()
        self._loader.preload()
        self._demand.start()
        self._log.info("Serving.", worker=self.identity.boot_id, pools=[one.pool for one in self._served])

    def drain(self) -> None:
        """Draw no more, announce that, and hand over jobs that do not finish in time. Does not block."""
        self._deadline.begin(worker_stop_seconds(self.drain_seconds))
        self._availability.stop()

    def has_jobs(self) -> bool:
        """Whether jobs were drawn that have not ended, nor were handed over."""
        return bool(self.attempts.all())

    def loads_of_start(self) -> LoadState:
        """How far the models are that are loaded at the start."""
        return self._loader.loads_of_start()

    def stop(self) -> None:
        """End everything, in order and by the deadline. Jobs that still run are given up."""
        self.drain()
        self._hand_over.join(self._deadline.remaining(but=WIND_UP_SECONDS))
        self._deadline.shorten(WIND_UP_SECONDS)
        self._inbox.stop(self._left())
        self._clock.stop(self._left())
        self._manifest.stop(self._left())
        self._demand.stop(self._left())
        self._beat.stop(self._left())
        self._flush.stop(self._left())
        self._health.stop(self._left())
        if self._swarm is not None:
            self._swarm.stop(self._left())
            self._trusted.close(self._left())
        self._loader.close(self._left())
        self._presence.close()
        self.port.close()
        self._client.close()
        self._ends.stop()
        if not self.has_jobs():
            # Nobody need tell its end.
            life_file(self.identity).unlink(missing_ok=True)
        self.identity.close()

    def _left(self) -> float:
        return self._deadline.remaining(but=CLOSING_SECONDS)

    def _models_changed(self) -> None:
        self._health.announce_now()
        self._demand.look()

    def _before_load(self, model: ModelSettings) -> None:
        self._base.before_load(model)

    def _status(self) -> WorkerStatus:
        self._log_health()
        # One that has not used its GPU yet would else get no job that asks for memory, and never use it.
        memory = video_memory()
        memory = memory if memory.total else self._driver_memory
        waiting = sum(attempt.phase is AttemptPhase.WAITING for attempt in self.attempts.all())
        return WorkerStatus(
            gpu_class=self._settings.worker.gpu_class,
            region=self._settings.worker.region,
            slots=self.slots.count,
            free=self.slots.free,
            supported=tuple(map(self._supported, self._served)),
            pools=tuple(model.pool for model in self._served),
            latency_hops=latency_hops(self._swarm.round_trip_ms if self._swarm else None),
            queue_depth=waiting,
            vram_total=memory.total,
            vram_free=memory.free,
            artifacts=self._cache.artifacts(),
            tokens_per_second=self.attempts.throughput.tokens_per_second(self.slots.count),
            prefill_tokens_per_second=self._prefill.tokens_per_second(MAX_TOKENS_PER_SECOND),
            state=self._announced_state(),
        )

    def _use_boot_id(self, boot_id: BootId) -> None:
        self._write_life((self._commands.boot_id, boot_id))
        self._commands.boot_id = boot_id

    def _write_life(self, boot_ids: tuple[BootId, ...]) -> None:
        life = ProcessLife(
            boot_ids=boot_ids,
            process=self.port.process,
            machine=this_machine(),
            pid=os.getpid(),
            place=self.identity.place,
        )
        try:
            write_life(life_file(self.identity), life)
        except OSError as error:
            # Its end cannot be told then: leases say what goes on elsewhere.
            self._log.warning("The life of this process cannot be written down.", why=error.strerror)

    def _announced_state(self) -> WorkerState:
        availability = self._availability.state
        if availability is AvailabilityState.CORDONED:
            return WorkerState.CORDONED
        if availability is not AvailabilityState.SERVING:
            return WorkerState.DRAINING
        return WorkerState.DISCONNECTED if self.port.contact.is_lost() else WorkerState.SERVING

    def _supported(self, model: ServedModel) -> Supported:
        version = model.version
        seconds = announced_seconds(self._loader.load_seconds(version.name, version.version))
        return Supported(version.name, version.version, version.digest, self._state_of(model), seconds)

    def _state_of(self, model: ServedModel) -> ModelState:
        name, version = model.version.name, model.version.version
        if self._loader.is_warm(name, version):
            return ModelState.WARM
        return ModelState.LOADING if self._loader.is_loading(name, version) else ModelState.COLD

    def _log_health(self) -> None:
        try:
            health = dict(self._base.health())
        except Exception:
            self._log.exception("The hook health failed.")
            return
        if health != self._logged_health:
            self._logged_health = health
            self._log.info("Health.", health=health)
