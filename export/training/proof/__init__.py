"""The proof that a training program does what Keras does: the same numbers in, step by step the same numbers out.

```
cases.py      what is trained on: drawn weights and batches that everybody can draw again       NumPy
answers.py    what came out, from a session on any runtime; how two such records are compared   NumPy
reference.py  the same from Keras: its GradientTape, its optimizers, its own short batches      Keras
prove.py      both, when a program is built; fails by layer                                     Keras
culprit.py    which layer is to blame                                                           Keras
operations.py activations before and after conversion                                           Keras
golden.py     Keras' answers as a file beside the program, repeated by `fl-mobile verify`       NumPy
```
"""
