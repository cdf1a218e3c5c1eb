"""What a run leaks, measured: canaries in a round, losses of members, pictures out of one update.

```
canaries.py    ε that one round leaks at least          membership.py  who was in the training data
own_noise.py   the same where devices add the noise
inversion.py   a batch, out of one update               pictures.py    the two side by side
```
"""
