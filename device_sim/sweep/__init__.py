"""Search over any key of an experiment, every trial on the same seeds, data and cohorts.

```
SWEEP.toml ─ file ─▶ SweepPlan ─┐
CODEC…     ─ arms ─▶ Trials ────┴▶ search ── ask ──▶ run: trial × seeds ─▶ simulate, each in its own run folder
                                     ▲                    │
                                     └────── tell ────────┴▶ results ─▶ trials.jsonl, sweep.json, best.toml, plot
```
What was found lives in the run folders and ``trials.jsonl`` only. After a kill the seeded search is asked the same
questions again and told the same answers, so that it goes on with the trial it would have chosen anyway.
"""
