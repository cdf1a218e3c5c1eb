"""Virtual phones: who they are, when they can, whether they should, who is asked, and what it takes.

```
 profiles ─┐                     availability ─▶ gate ─▶ samplers.choose ─▶ policies ─▶ task ─▶ policies ─▶ packet
 links ────┼─▶ fleet.devices(d)        │      who can     who is asked    who should          what is worth it
 traces ───┘                         ledger ◀───────────────── who took part, what it cost
```
Everything about device d is a function of (seed, d), drawn when it is asked; only devices that took part have a row
in the `ledger`. NumPy only.
"""
