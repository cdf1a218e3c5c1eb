"""A world for the two roles of `fl_mobile`: who trains, when, on whose data, over what link. It owns no protocol.

```
experiment ─▶ federation ─▶ rounds: crew ─▶ trip (training on engines, the link) ─▶ the server's step
                 │             └─ one step after another in run, which keeps them safe on disk
                 └─ datasets, client_data, fleet, engines
```
"""
