"""One round on many devices at once: when each has the model, has trained and has sent, and what that took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_sim.fleet.devices.columns import Devices
from device_sim.fleet.devices.energy import train_joules
from device_sim.fleet.devices.links import Air
from device_sim.fleet.devices.mishaps import Mishaps
from device_sim.fleet.devices.timing import train_seconds


@dataclass(frozen=True)
class Training:
    """Devices up to the end of local training.

    Attributes:
        downloaded: ``float64[n]`` virtual seconds at which each has the model; inf if it never answered.
        trained: ``float64[n]`` virtual seconds at which training ended or was broken off.
        finished: ``bool[n]``: it ended with an update.
        joules: ``float64[n]`` spent so far, broken-off training included.
    """

    downloaded: np.ndarray
    trained: np.ndarray
    finished: np.ndarray
    joules: np.ndarray


@dataclass(frozen=True)
class Sending:
    """Uploads.

    Attributes:
        uploaded: ``float64[n]`` virtual seconds at which each upload is there, or broke off.
        arrived: ``bool[n]``.
        sent_bytes: ``int64[n]``: bytes that went on air, those of broken-off uploads too.
        joules: ``float64[n]`` of the uploads alone.
    """

    uploaded: np.ndarray
    arrived: np.ndarray
    sent_bytes: np.ndarray
    joules: np.ndarray


def train_on(
    devices: Devices, asked: np.ndarray, air: Air, mishaps: Mishaps, flops: np.ndarray, download_bytes: np.ndarray
) -> Training:
    """Returns devices from being asked to the end of training.

    Args:
        asked: ``float64[n]`` virtual seconds.
        flops: ``float64[n]``, `timing.Workload.flops`.
        download_bytes: ``int64[n]``, lengths of the packets each downloads.
    """
    down_seconds = devices.down_seconds(download_bytes, air)
    needed = train_seconds(flops, devices.train_flops_per_s)
    spent = np.minimum(needed, mishaps.lasts_seconds)
    answers = ~mishaps.silent
    joules = devices.down_joules(download_bytes, down_seconds) + train_joules(devices.train_watts, spent)
    downloaded = np.where(answers, asked + down_seconds, np.inf)
    return Training(downloaded, downloaded + spent, answers & (spent >= needed), np.where(answers, joules, 0.0))


def send(devices: Devices, training: Training, air: Air, upload_bytes: np.ndarray) -> Sending:
    """Returns the uploads of devices that finished; of the others nothing goes on air and nothing arrives.

    Args:
        upload_bytes: ``int64[n]``, lengths of the real packets.
    """
    share = np.where(air.lost, air.lost_share, 1.0)
    sent = np.where(training.finished, np.floor(share * upload_bytes), 0).astype(np.int64)
    seconds = devices.up_seconds(sent, air)
    return Sending(
        uploaded=np.where(training.finished, training.trained + seconds, np.inf),
        arrived=training.finished & ~air.lost,
        sent_bytes=sent,
        joules=devices.up_joules(sent, seconds),
    )
