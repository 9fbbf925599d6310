"""Attacks and audits that check what a federated run really leaked.

The package reads what an adversary would have seen (the transcript of a run) and imports only the public names
of `framp_private`, which never imports it back.
"""
