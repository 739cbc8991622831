"""The results as a page to click through: one folder of static files, a pure function of records, certificates,
recorded decodings and the sentences of docs/gallery.toml. It needs no server and no network, and sends no request.

    python -m repro.results page --out build/page

`build` writes the files. `timed`, `laws` and `texts` make the frontier plots (`series` says what a plot is), `ledger`
certificates and claims, `decodings` the recorded decodings; `sources` notes for each number the records that it is
computed from. What the browser does is in `static/`: plain HTML, CSS and JavaScript, written for this page and without
libraries: each point is an element of its own, so that the keyboard can reach it.
"""
