"""What a run claims: how clients are sampled, between which worlds ε tells, and how much noise there is."""

from __future__ import annotations

from dataclasses import dataclass

from fl_mobile.errors import ConfigError, check_known
from fl_mobile.privacy.rules import LEAST_MULTIPLIER


@dataclass(frozen=True)
class Sampling:
    """A row of `SAMPLINGS`.

    Attributes:
        relation: The two worlds that ε compares.
        assumes: What must hold of the choice of clients.
        samplers: Values of selection.sampler for which it does.
    """

    relation: str
    assumes: str
    samplers: tuple[str, ...]


POISSON, FIXED_SIZE, NONE_ASSUMED = "poisson", "fixed-size", "none-assumed"
SAMPLINGS: dict[str, Sampling] = {
    POISSON: Sampling(
        "one client added or removed",
        "every client takes part with the same probability, independently of all others, in secret, without a cap",
        ("poisson",),
    ),
    FIXED_SIZE: Sampling(
        "one client replaced by another, which moves a sum twice as far",
        "a cohort of fixed size, all equally likely, in secret, from clients that all can",
        ("uniform",),
    ),
    NONE_ASSUMED: Sampling(
        "one client's updates replaced by zeros",
        "nothing: every client may take part in every round, and everybody may know",
        ("poisson", "uniform"),
    ),
}
"""``privacy.sampling`` → what is claimed with it."""


LOCAL_RELATION = "one client's updates replaced by any others, which moves each twice as far; that it sent any is known"
SHARES_RELATION = "one client's updates replaced by zeros; that it took part is known"
SHARES_ASSUMES = (
    "that all clients in a sum add their share of the noise, and nothing of who takes part: the server, which reads the"
    " noisy sum and nothing else, knows that, so that nothing is amplified"
)

LOCAL_ASSUMES = "nothing of the server or of who takes part: the noise is the client's own"


@dataclass(frozen=True)
class Claim:
    """One private run, as its ledger books it. The unit is a client: all examples of one device, in all rounds.

    Attributes:
        sampling: A row of `SAMPLINGS`.
        population: Clients.
        cohort: Their expected number in a round.
        noise_multiplier: z of `PrivacyRules`.
        delta: Below 1/population, or ε would allow to publish somebody's data.
        local: Whether each client adds the noise itself: rounds are those that one client answered in.
        shares: Whether clients add the noise in shares under masks: rounds are counted as under ``local``.
        beside: ε that an answer costs beside that of discrete Gaussian noise.
    """

    sampling: str
    population: int
    cohort: int
    noise_multiplier: float
    delta: float
    local: bool = False
    shares: bool = False
    beside: float = 0.0

    def __post_init__(self) -> None:
        check_known("privacy.sampling", self.sampling, SAMPLINGS)
        if not 0 < self.delta < 1 / self.population:
            raise ConfigError(
                f"privacy.delta must be above 0 and below 1/{self.population} = {1 / self.population:.3g}, one over the"
                f" number of devices, got {self.delta:g}: publishing one device's data as it is has such a δ"
            )
        if (self.local or self.shares) and self.sampling != NONE_ASSUMED:
            raise ConfigError(f"clients' own noise assumes nothing of who takes part, not '{self.sampling}' sampling")
        if not 2 - self.local <= self.cohort <= self.population:
            raise ConfigError(
                f"train.cohort must be from 2 to the {self.population} devices there are, got {self.cohort}: one client"
                " alone has nobody to hide among"
            )
        if not self.noise_multiplier >= LEAST_MULTIPLIER:
            raise ConfigError(
                f"privacy.noise-multiplier must be at least {LEAST_MULTIPLIER}, got {self.noise_multiplier}: below, ε"
                " says nothing, and computing it takes more memory than a machine has"
            )

    @property
    def rate(self) -> float:
        """Probability that a client takes part in a round."""
        return self.cohort / self.population

    @property
    def distance(self) -> int:
        """How far one client's update can move what the noise hides, in clipping norms."""
        return 2 if self.local or self.sampling == FIXED_SIZE else 1

    @property
    def relation(self) -> str:
        """The two worlds that ε compares."""
        if self.shares:
            return SHARES_RELATION
        return LOCAL_RELATION if self.local else SAMPLINGS[self.sampling].relation

    @property
    def assumes(self) -> str:
        """What must hold of the choice of clients."""
        if self.shares:
            return SHARES_ASSUMES
        return LOCAL_ASSUMES if self.local else SAMPLINGS[self.sampling].assumes


def default_delta(population: int) -> float:
    """Returns ``population^−1.1``, what is usual.

    >>> f"{default_delta(3000):.2e}"
    '1.50e-04'
    """
    return float(population**-1.1)
