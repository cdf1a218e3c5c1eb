"""Client and server of a federation: what both agree on, and the half of the protocol that each plays; NumPy only.

```
server                                   client
assign, publish ──────── Download ─────▶ receive ─▶ local training ─▶ Update
                                                                        │ mask, residual, prediction
admit ◀──────────────────── bytes ────── answer: quantize, prune, entropy-code, pack
  ├── Receipt ─────────────────────────▶ keep: residual, control variate
  └─▶ aggregation ─▶ algorithm ─▶ the next ServerState
```
Both roles are functions over frozen records: whoever drives them, the same packets give the same model. `device_sim`
drives them with a virtual clock. What is trained lives in `models`, which imports Keras lazily.
"""

__version__ = "0.1.0"
