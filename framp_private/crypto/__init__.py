"""Cryptographic parts, fenced: only protections and accounts build on them. No torch here.

Nothing here is a protocol. Each function guarantees what its docstring says and no more; put together wrongly, safe
parts leak.
"""
