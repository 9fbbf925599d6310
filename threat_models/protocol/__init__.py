"""Parties that do not follow the protocol, against the installed code: each reaches what it is after, or is refused.

`crafted` has servers that send what no honest one would, `leftovers` whoever gets hold of what a run leaves behind.
Every one of them gives findings: none where the code holds. `check_protocol` runs those that a run has something for.
"""

from threat_models.protocol.checks import ADVERSARIES as ADVERSARIES
from threat_models.protocol.checks import check_protocol as check_protocol
