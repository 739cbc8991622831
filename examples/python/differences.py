"""The settings in which two recipes differ."""

from repro.recipes.scale import by_name
from repro.results.recipes import differing

print(*differing(by_name("duo@nano"), by_name("mdlm@nano")), sep="\n")
