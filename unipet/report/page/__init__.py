"""The offline page: every record below a directory as one HTML file that needs no network.

`comparisons` says what may stand in one chart, `pareto`, `effects` and `curves` compute what the charts show, `charts`
says how, `layer` and `circuit` draw a method from its configuration, a module for each part of the page says what that
part shows, `templates/` has the HTML, which `document` fills in by `rendering`, `serve` follows a running sweep.
`page.css` and `page.js` stand beside them as the files that they are.
"""
