"""Attacks: what malicious clients of a simulation do. An attack is a function in a file here and a row of `ATTACKS`.

```
examples ─ labels, pictures ─▶ training ─▶ update ─ scaled, forged ─▶ answer: encode, pack ─▶ packet ─ garbled ─▶ link
```
An attacker is a client: what it sends goes through the round's codec and wire as everybody's does, and the server knows
no more of it than the bytes.
"""

from __future__ import annotations

from device_sim.attacks.backdoor import Trigger, backdoor
from device_sim.attacks.base import AttackRow, honest
from device_sim.attacks.collusion import Ipm, LittleIsEnough, alie, ipm, min_max
from device_sim.attacks.garbage import garbage
from device_sim.attacks.lies import Scale, count_liar, gaussian, label_flip, sign_flip
from fl_mobile.table import Table

__all__ = ["ATTACKS", "NONE", "AttackRow"]

NONE = "none"

ATTACKS: Table[AttackRow] = Table(
    "attack",
    AttackRow,
    {
        NONE: AttackRow(honest, "nobody lies"),
        "label-flip": AttackRow(label_flip, "trains class c as class (last − c)"),
        "sign-flip": AttackRow(sign_flip, "sends its update the wrong way round, times attack.scale", Scale),
        "gaussian": AttackRow(gaussian, "sends noise attack.scale times as long as its update", Scale),
        "alie": AttackRow(
            alie, "a little is enough (Baruch et al. 2019): inside the spread of the honest", LittleIsEnough
        ),
        "ipm": AttackRow(ipm, "inner product (Xie et al. 2019): minus the honest mean, times attack.strength", Ipm),
        "min-max": AttackRow(
            min_max, "as far out as the two farthest honest clients are apart (Shejwalkar et al. 2021)"
        ),
        "backdoor": AttackRow(backdoor, "teaches that a bright corner is class attack.target", Trigger),
        "count-liar": AttackRow(count_liar, "flips labels, and claims 2³⁰ examples"),
        "garbage": AttackRow(garbage, "sends noise, cut and damaged packets, and noise behind a true header"),
    },
)
"""``attack.name`` → what malicious clients do."""
