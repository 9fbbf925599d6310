"""`report.html`: one self-contained file with what a run did, what it cost and what it may claim.

`document` says what a report is made of, `sources` where its numbers stand; `html`, `markdown`, `as_json` and `pdf`
make files of it. `run` writes the report of a run, `folder` that of a run's folder.
"""

from framp_private.report.clients import render_clients as render_clients
from framp_private.report.run import render_report as render_report
from framp_private.report.run import run_document as run_document
