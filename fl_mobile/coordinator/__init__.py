"""The server's role over HTTP, for clients that are not simulated.

```
phone ─HTTP─ limits ─ web ─ writer ─▶ core: request + store ─▶ reply     one thread, many to a transaction
                                        ▲            │
  round master (who drives `fl_mobile.server`) ──────┘ opens a round, waits, takes its packets
```
The laws of the protocol are in `core`, functions over a transaction; they run without sockets and without a clock. What
a packet is worth, and what the next model is, `fl_mobile.server` decides, here as in the simulator.
"""
