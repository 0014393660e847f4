"""What can go wrong, told so that a person can act: what, where, why, and what to do.

`SelfsupError` is the only exception that the library raises on purpose for a user's mistake or a
machine's failure. Each has an id from `CATALOGUE`, which also fixes the exit code of the command.
"""

from typing import NamedTuple

OK, USAGE, COLLAPSED, DIVERGED = 0, 2, 3, 4
BAD_DATA, NO_INPUT, BUG, IO, LOCKED = 65, 66, 70, 74, 75


class Entry(NamedTuple):
    exit_code: int
    title: str


CATALOGUE: dict[str, Entry] = {
    # data: E1xx
    "E101": Entry(NO_INPUT, "the data cannot be found"),
    "E102": Entry(NO_INPUT, "nothing usable in the data"),
    "E103": Entry(BAD_DATA, "too many samples cannot be read"),
    "E104": Entry(BAD_DATA, "a form of data that is not read"),
    "E105": Entry(BAD_DATA, "a table of labels or files that cannot be used"),
    "E106": Entry(BAD_DATA, "an archive, table or array file that cannot be read"),
    # settings and command line: E2xx
    "E201": Entry(USAGE, "a setting is not valid"),
    "E202": Entry(USAGE, "the encoder does not suit the method"),
    "E203": Entry(NO_INPUT, "a settings file cannot be read"),
    "E204": Entry(USAGE, "a package is not installed"),
    "E205": Entry(IO, "the system refused to read or write"),
    "E206": Entry(IO, "out of memory"),
    "E208": Entry(BUG, "the self-test failed"),
    "E299": Entry(BUG, "a fault of selfsup"),
    # runs and checkpoints: E3xx
    "E301": Entry(NO_INPUT, "there is no run in this folder"),
    "E302": Entry(LOCKED, "another process works on this run"),
    "E303": Entry(IO, "the disk is full"),
    "E304": Entry(USAGE, "the settings of the run have changed"),
    "E305": Entry(IO, "no checkpoint can be read"),
    "E308": Entry(USAGE, "the data of the run have changed"),
    # evaluation: E5xx
    "E501": Entry(BAD_DATA, "the data has no labels to evaluate with"),
    "E502": Entry(BAD_DATA, "the same sample is in both parts of the split"),
    "E503": Entry(BAD_DATA, "too few labels to evaluate with"),
    # export and load: E6xx
    "E601": Entry(NO_INPUT, "there is no encoder to load"),
    "E602": Entry(BAD_DATA, "an encoder's description that is not valid"),
    "E603": Entry(BAD_DATA, "weights that are damaged or belong to something else"),
    "E604": Entry(BUG, "the exported encoder does not compute the same"),
    "E605": Entry(USAGE, "the output exists and comes from something else"),
    "E606": Entry(LOCKED, "another process is writing the same output"),
    "E607": Entry(USAGE, "a format that cannot be written"),
    "E608": Entry(NO_INPUT, "there is no model to predict with"),
    # report: E7xx
    "E701": Entry(IO, "the report cannot be written"),
    # distributed: E8xx
    "E801": Entry(USAGE, "the batch cannot be divided among the processes"),
}


class SelfsupError(Exception):
    """An error with an id, told in four parts.

    `what` happened, `where` (a file, a setting), `why` (the likely cause) and what to `do`.
    """

    def __init__(self, code: str, what: str, *, where: str = "", why: str = "", do: str = ""):
        assert code in CATALOGUE, f"{code} is not in the catalogue"
        super().__init__(what)
        self.code, self.what, self.where, self.why, self.do = code, what, where, why, do

    @property
    def exit_code(self) -> int:
        return CATALOGUE[self.code].exit_code

    def __str__(self) -> str:
        parts = {"where": self.where, "why": self.why, "do": self.do}
        lines = [f"  {name + ':':<7}{text}" for name, text in parts.items() if text]
        return "\n".join([f"error[{self.code}] {self.what}", *lines])

    def to_json(self) -> dict[str, str]:
        parts = ("code", "what", "where", "why", "do")
        return {name: getattr(self, name) for name in parts}
