"""Virtual phones: who they are, when they can, whether they should, who is asked, and what it takes.

```
 profiles ─┐                     availability ─┐
 links ────┼─▶ fleet.devices(d) ─▶ policies ───┼─▶ gate ─▶ samplers.choose ─▶ cohort
 traces ───┘        │                   ledger ┘
                    └─▶ task (timing, links, energy, mishaps): seconds, joules and losses of one task
```
Everything about device d is a function of (seed, d), drawn when it is asked; only devices that took part have a row
in the `ledger`. NumPy only.
"""
