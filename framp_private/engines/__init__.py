"""Engines deliver requests and bring back replies; a protocol never does input or output itself."""
