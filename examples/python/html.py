"""Save a decode as a web page; a notebook shows `stream(...)` in the same way."""

from pathlib import Path

from repro import stream

page = stream("oracle:duo@nano", sampler="ancestral", steps=6)._repr_html_()
Path("decode.html").write_text(f"<meta charset='utf-8'>{page}\n", encoding="utf-8")
