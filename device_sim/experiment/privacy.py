"""[privacy]: what nobody may learn about a single device from the model."""

from __future__ import annotations

from dataclasses import dataclass

from device_sim.experiment.keys import key
from fl_mobile.errors import ConfigError, check_known
from fl_mobile.privacy import SAMPLINGS
from fl_mobile.privacy.claim import NONE_ASSUMED
from fl_mobile.privacy.local import LocalNoise
from fl_mobile.privacy.rules import LEAST_MULTIPLIER, PrivacyRules

NO_PRIVACY, CENTRAL, DISTRIBUTED, LOCAL = "none", "central", "distributed", "local"
MODES = (NO_PRIVACY, CENTRAL, DISTRIBUTED, LOCAL)


@dataclass(frozen=True)
class Privacy:
    """[privacy]: differential privacy of whole devices, and what it is claimed under."""

    mode: str = key(
        NO_PRIVACY,
        f"{' | '.join(MODES)}: noise by the server to a sum, by devices in shares under masks, or each to its own",
    )
    clip_norm: float = key(1.0, "L2 norm every update is clipped to; where it adapts, that of round 0")
    clip_quantile: float = key(
        0.0, "the norm follows this quantile of the devices' norms, 0.5 is the median; 0 fixes it"
    )
    clip_rate: float = key(0.2, "how fast it follows")
    count_noise: float = key(0.0, "noise on the number of devices within the norm; 0 is a 20th of train.cohort")
    noise_multiplier: float = key(0.0, "noise over what one device can change; give it or target-epsilon")
    target_epsilon: float = key(0.0, "the least noise with which train.rounds rounds spend at most this is taken")
    delta: float = key(0.0, "below 1 / number of devices; 0 is that number to the power of -1.1")
    sampling: str = key("poisson", f"{' | '.join(SAMPLINGS)}: what ε assumes of selection.sampler")
    max_epsilon: float = key(0.0, "the run stops before a round that would spend more; 0 is off")
    reproducible: bool = key(False, "noise follows from the seed: for simulations, and protects nobody")

    def __post_init__(self) -> None:
        check_known("privacy.mode", self.mode, MODES)
        check_known("privacy.sampling", self.sampling, SAMPLINGS)
        if not self.on:
            return
        if bool(self.noise_multiplier) == bool(self.target_epsilon):
            raise ConfigError(
                f"give privacy.noise-multiplier or privacy.target-epsilon, one of them, got {self.noise_multiplier:g}"
                f" and {self.target_epsilon:g}: there is no privacy without noise"
            )
        if self.target_epsilon < 0 or self.max_epsilon < 0:
            raise ConfigError(
                f"privacy.target-epsilon and privacy.max-epsilon must be above 0, got {self.target_epsilon:g} and"
                f" {self.max_epsilon:g}: at ε = 0 nothing could be released"
            )
        if not 0 <= self.delta < 1:
            raise ConfigError(f"privacy.delta must be above 0 and below 1 / number of devices, got {self.delta:g}")
        if self.of_devices:
            LocalNoise(self.clip_norm, self.noise_multiplier or LEAST_MULTIPLIER, 1)
            return
        self.rules(self.noise_multiplier or LEAST_MULTIPLIER, cohort=40)

    @property
    def on(self) -> bool:
        """Whether there is any."""
        return self.mode != NO_PRIVACY

    @property
    def central(self) -> bool:
        """Whether the server adds the noise."""
        return self.mode == CENTRAL

    @property
    def distributed(self) -> bool:
        """Whether devices add it in shares, to a sum under masks."""
        return self.mode == DISTRIBUTED

    @property
    def of_devices(self) -> bool:
        """Whether devices add the noise, and count their own answers."""
        return self.local or self.distributed

    @property
    def local(self) -> bool:
        """Whether every device hides its own update."""
        return self.mode == LOCAL

    @property
    def assumed(self) -> str:
        """What ε assumes of the choice of devices, a row of `SAMPLINGS`."""
        return NONE_ASSUMED if self.of_devices else self.sampling

    def rules(self, noise_multiplier: float, cohort: int, first_key: bytes = b"") -> PrivacyRules:
        """Returns how the server releases sums.

        Raises:
            ConfigError: A value is out of its limits.
        """
        return PrivacyRules(
            clip_norm=self.clip_norm,
            noise_multiplier=noise_multiplier,
            cohort=cohort,
            quantile=self.clip_quantile,
            clip_rate=self.clip_rate,
            count_noise=self.count_noise or max(cohort / 20, noise_multiplier),
            first_key=first_key,
        )
