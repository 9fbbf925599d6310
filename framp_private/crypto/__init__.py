"""Cryptographic parts, fenced: what signs, seals, shares and masks builds on them. No torch here.

Nothing here is a protocol. Each function guarantees what its docstring says and no more; put together wrongly, safe
parts leak.
"""
