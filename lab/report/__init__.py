"""The report: one self-contained HTML file (`report`), its figures, its page and style."""
