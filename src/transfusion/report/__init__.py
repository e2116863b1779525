"""The report of a run: one self-contained HTML file with curves and their meaning, samples, scores and what to do next.

It reads what a run left in its folder (metrics, samples, scores) and what an evaluation judged; it computes nothing.
"""

from transfusion.report.write import REPORT_FILE, write_report, write_run_report

__all__ = ["REPORT_FILE", "write_report", "write_run_report"]
