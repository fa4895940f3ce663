"""The offline page: every record below a directory as one HTML file that needs no network.

`comparisons` says what may stand in one chart, `front`, `effects` and `curves` compute what the charts show, `charts`
says how, `layer` and `circuit` draw a method from its configuration, `sections` and `document` write the HTML, `serve`
follows a running sweep. `page.css` and `page.js` stand beside them as the files that they are.
"""
