"""Settings: what each may be, where its value came from, and how it is written down again.

A value comes from the first of: the command line (or Python's keyword arguments), an environment
variable SELFSUP_<SECTION>_<KEY>, the file given by --config, the plan, the default. Files are TOML.
Everything is strict: unknown keys, duplicates, true for a number, nan and inf are refused, all of
them at once, each with its key, the value found, what was expected and the nearest known key.
No setting names a Python object; names of methods and encoders are looked up among the files here.

    schema.py    every key that is there for all runs, and what it may be
    shelves.py   the keys of a method, an encoder, a modality: keyword arguments of its constructor
    given.py     what a file, the environment and the command line gave
    checked.py   the same in the types of the schema, or every fault at once
    resolved.py  defaults, under the plan's choices, under what was given
    written.py   as TOML, and as the tables of docs/settings.md
"""

from .checked import check
from .given import Given, flatten, from_environment, from_file, from_sets, gather, literal
from .resolved import Settings, Value, load, resolve
from .schema import LENGTHS, NONE, SECTIONS, SHELVES
from .shelves import encoder_builder, keyword_defaults, method_class
from .written import reference, toml_value

__all__ = [
    "LENGTHS",
    "NONE",
    "SECTIONS",
    "SHELVES",
    "Given",
    "Settings",
    "Value",
    "check",
    "encoder_builder",
    "flatten",
    "from_environment",
    "from_file",
    "from_sets",
    "gather",
    "keyword_defaults",
    "literal",
    "load",
    "method_class",
    "reference",
    "resolve",
    "toml_value",
]
