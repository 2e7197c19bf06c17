"""What an evaluation shows: figures, tables, sentences, and one self-contained page that holds them."""

from core.report.contents import Absent as Absent
from core.report.figures import figures_of as figures_of
from core.report.findings import findings as findings
from core.report.tables import markdown_table as markdown_table
from core.report.write import write_report as write_report
