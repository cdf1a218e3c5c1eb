"""Updates on their way from a phone into the global model; numpy only.

```
Update ─ client.encode_update ─▶ bytes ─ server.server_round ─▶ ServerState
           clip, codecs, wire              wire, codecs, aggregate, algorithms
```
What is trained lives in `models` and is read by path through `keras_bridge`; these two import Keras, lazily.
`export` turns the global model into device artifacts, `device_sim` simulates the phones.
"""

__version__ = "0.1.0"
