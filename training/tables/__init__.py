"""Tables, charts and pages: the one place that makes each.

- `table`: a table as Markdown, CSV and HTML. `biam_tf.csv_files` reads and writes large ones row
  by row.
- `templates`: HTML from Jinja templates.
- Charts come in two kinds, by where they are shown. `svg_charts` draws those *inside a page*: they
  follow the page's light or dark colors, show values under the pointer, and need no library, so
  that every run has a report. `plots` draws those that are *files*, as PNG for documents and
  terminals, with matplotlib (the extra `report`), which also has the error bars, bars, heat maps
  and logarithmic axes that a page does not need.
"""
