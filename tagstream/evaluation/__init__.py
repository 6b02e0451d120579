"""How good taggers and extractors are on labelled rows.

measures    arithmetic on counts, over weighted rows: a figure and its bootstrap are one computation
figures     figures of a group, a value and a whole report, and how they are made of scores
tag_sets    tags of a product as one set: F1, edit distance, faults of writing
comparison  model versions side by side on every slice of the rows, and their differences
spans       exact span F1 of extractors
tables      a comparison on the console or as HTML
plots       the pictures of a report
report      the HTML report of one model, and the page of a comparison
report.html  its template
"""
