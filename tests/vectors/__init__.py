"""A second reader and writer of the bytes of OmniMesh, in parts as docs/protocol.md has sections.

It was written from that page alone and shares no code with the node. `verify_vectors.py`, beside this folder, runs it.
Each module says for which section it stands and which files of docs/vectors it checks; its checks come last. What the
others are made with is in `notation`, `cbor`, `wide_cbor` and `frames`, the form of the cases in `cases`; `files` says
which check belongs to which file.
"""
