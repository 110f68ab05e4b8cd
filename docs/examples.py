"""Shows what stands under "Example:" in a docstring as code, as what stands under "Examples:"."""

import re

import griffe


class OneExample(griffe.Extension):
    """Reads the one as the other."""

    def on_instance(self, *, obj, **_):
        """Renames the section."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M
            )
