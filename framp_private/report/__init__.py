"""`report.html`: one self-contained file with what a run did, what it cost and what it may claim."""

from framp_private.report.render import render_report as render_report
