"""Secure aggregation: the server learns sums and nothing else (Bell et al. 2020; Bonawitz et al. 2017).

Double masking on a k-regular neighbour graph: a client's vector carries a mask of its own and one with each neighbour,
which cancel in the sum. Shares of what makes the masks lie with the neighbours, who open, for each client, the one or
the other: its own seed if its vector arrived, its mask key if it did not.
"""

from framp_private.protections.secagg.value import SecAgg as SecAgg
