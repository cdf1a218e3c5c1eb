"""A served run in one thread and without HTTP: clients act while the master waits. It can be broken at any call."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from device_sim.deploy.examples import Examples
from device_sim.deploy.master import Master
from device_sim.deploy.opening import publish_terms
from device_sim.deploy.serve import coordinator_folder
from device_sim.experiment.experiment import Experiment
from device_sim.run.folder import create, locked, reopen
from device_sim.run.loop import simulate
from fl_mobile.client.kept import device_key
from fl_mobile.client.participate import Client, Trainer
from fl_mobile.client.remote import Refused, Remote
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.core import Place, Signed
from fl_mobile.coordinator.lease import Lease
from fl_mobile.coordinator.records import Pace, Refusal
from fl_mobile.coordinator.writer import AtOnce
from fl_mobile.protocol.signing import from_base64
from tests.device_sim.deploy.loopback import held_by, on
from tests.device_sim.numpy_engine import numpy_federation

MOST_VISITS = 300
"""A run that is not at its end after so many will never be."""
BRIEF = Lease(holder="test", seconds=600)
"""Of the same holder, as nobody else is: one that was killed is followed at once."""
_STEP = re.compile(r"/v1/rounds/(\d+)/devices/(\d+)/sum/(\d+)")
_ATTEMPT = re.compile(r"/v1/rounds/(\d+)/devices/(\d+)/attempts/(\d+)")


class Local(Remote):
    """A client's connection that is a function call."""

    coordinator: Coordinator

    def _once(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, *, most: int = 0
    ) -> tuple[int, bytes]:
        coordinator, device = self.coordinator, self.device
        if path == "/v1/run":
            terms = coordinator.terms
            told = {"run": coordinator.run, "terms": {"sha256": terms.sha256, "bytes": terms.bytes}}
            return 200, json.dumps(told).encode()
        if path.startswith("/v1/blobs/"):
            return 200, coordinator.blobs.get(path.rpartition("/")[2])
        try:
            if found := _ATTEMPT.fullmatch(path):
                place = Place(*map(int, found.groups()))
                coordinator.check_token(headers["Authorization"].partition(" ")[2], place)
                act: Callable[[Place], object] = {"GET": coordinator.look_up, "DELETE": coordinator.give_up}.get(method)
                asked = coordinator.upload(place, body) if method == "PUT" else act(place)
            elif found := _STEP.fullmatch(path):
                number, device, step = map(int, found.groups())
                place = Place(number, device, 0)
                coordinator.check_token(headers["Authorization"].partition(" ")[2], place)
                put = method == "PUT"
                asked = coordinator.answer(place, step, body) if put else coordinator.hear(place, step)
            else:
                signed = Signed(method, path, body, int(headers["FL-Time"]), from_base64(headers["FL-Signature"], 64))
                value = json.loads(body)
                if path == "/v1/devices":
                    asked = coordinator.enrol(signed, from_base64(value["public_key"], 32))
                else:
                    asked = coordinator.check_in(signed, device=device, held=value["held"])
            reply = asked.result()
        except Refusal as refusal:
            if refusal.status == 507:
                raise refusal.__cause__ from None  # as a whole process would see its disk
            reply = refusal.reply
        return reply.status, json.dumps(reply.body).encode() if reply.data is None else reply.data


def play(
    experiment: Experiment, folder: Path, train: Callable[..., Trainer] | None = None, *, database: str = ""
) -> list[int]:
    """Returns how many packets counted in every round of a run that began or went on here."""
    federation = numpy_federation(experiment)
    run_path = folder / "run"
    run = reopen(run_path, experiment)[0] if (run_path / "experiment.toml").exists() else create(run_path, experiment)
    with locked(run):
        pace = Pace(least_seconds=0.001, check_ins_per_second=1e6)
        coordinator = Coordinator(
            coordinator_folder(run), url=database, lease=BRIEF, pace=pace, writer=AtOnce, patient=False
        )
        try:
            fixed = publish_terms(federation, coordinator)
            trainer = train or on(federation.engine)
            clients = [_client(coordinator, folder / one.name, trainer, one) for one in held_by(federation)]
            for client in clients:
                client.enrol()
            turn = iter(range(MOST_VISITS))

            def act() -> bool:
                clients[next(turn) % len(clients)].visit()  # StopIteration is loud: no client brings it further
                return False

            master = Master(coordinator, {}, fixed=fixed, drawn=True, stopped=act)
            return [done.accepted for done in simulate(federation, run, master)]
        finally:
            coordinator.close()


def _client(coordinator: Coordinator, folder: Path, train: Callable[[Examples], Trainer], one: Examples) -> Client:
    remote = Local("http://local", device_key(folder))
    remote.coordinator = coordinator
    return Client(remote, folder, train(one))


__all__ = ["Local", "Refused", "play"]
